import torch

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.model.global_batch import TrainingPairs
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.training_step import correlate_cells, cosines_at, embed_step, match_own_maps


@torch.inference_mode()
def test_rows_of_the_strong_loss_are_rows_of_the_correlation(dynamic: HyperpixelNetwork, squares: torch.Tensor) -> None:
    features = dynamic.describe(squares[:2])
    source, target = features[torch.tensor([0])], features[torch.tensor([1])]
    output = dynamic.correlate(source, target)
    cells = torch.tensor([[0, 77, 3599]])
    gates = dynamic.select(source, target)
    rows = correlate_cells(dynamic, source, target, gates, cells, output.geometric_scores)
    assert torch.allclose(rows[0], output.correlation[0][cells[0]], rtol=1e-3, atol=1e-5 * output.correlation.max())


def test_unselected_layers_get_no_gradient_from_the_correlation(dynamic: HyperpixelNetwork) -> None:
    network = build_network(ModelConfig(projection_divisor=8)).train()
    maps = network.extract(torch.randint(0, 255, (4, 3, 240, 240), dtype=torch.uint8))
    source, target = embed_step(network, [m[:2] for m in maps], [m[2:] for m in maps], TrainingPairs.aligned(2))
    gates = torch.zeros(2, 17)
    gates[:, 7] = 1
    scores = torch.ones(2, 119, 119)
    correlate_cells(network, source, target, gates, torch.tensor([[10], [20]]), scores).sum().backward()
    touched = {n for n, p in enumerate(network.projections) if p[0].weight.grad is not None and p[0].weight.grad.any()}
    assert touched == {7}


@torch.inference_mode()
def test_own_maps_match_as_fixed_layers_do(squares: torch.Tensor) -> None:
    layers, engine = (5, 11, 15), choose_engine("compiled")
    fixed = build_network(ModelConfig(selection="fixed", layers=layers))
    learning = build_network(ModelConfig(projection="residual"))
    learning.projections[11].mix.weight.fill_(1.0)  # what is learned does not show
    found = match_own_maps(learning, learning.extract(squares[:2]), learning.extract(squares[2:]), layers, engine)
    features = fixed.describe(squares)
    wanted = torch.ones(2, 3600, dtype=torch.bool)
    expected, _ = fixed.match(features, features, [(0, 2), (1, 3)], wanted, engine)
    assert torch.equal(found.filtered_target, expected.filtered_target)
    assert torch.allclose(found.value, expected.value)


def test_rows_of_the_correlation_are_powers_of_cosines_times_votes(squares: torch.Tensor) -> None:
    network = build_network(ModelConfig(projection="residual"))
    with torch.no_grad():
        maps = network.extract(squares[:2])
    source, target = (network.embed([m[n : n + 1] for m in maps]) for n in (0, 1))
    gates, cells = torch.ones(1, len(network.layers)), torch.tensor([[610, 1833]])
    whole = network.correlate_selected(source, target, gates)
    rows = correlate_cells(network, source, target, gates, cells, whole.geometric_scores)
    assert torch.allclose(rows[0], whole.correlation[0, cells[0]], rtol=1e-3, atol=1e-6 * float(rows.max()))
    cosines = cosines_at(network, source, target, gates, cells)
    assert cosines.min() >= -1 and cosines.max() <= 1 and cosines.requires_grad
    scores = network.hough.scores_at(whole.geometric_scores, cells)
    assert torch.allclose(rows, cosines.relu() ** 3 * scores)


def test_what_goes_beyond_the_published_method_is_learned_with(squares: torch.Tensor) -> None:
    beyond = ModelConfig(
        selection="fixed",
        layers=(5, 11),
        projection="residual",
        features="signed-sqrt",
        votes="foreground",
        readout="soft",
    )
    network, engine = build_network(beyond), choose_engine("compiled")
    with torch.no_grad():
        source, target = network.extract(squares[:1]), network.extract(squares[1:2])
    features = embed_step(network, source, target, TrainingPairs.aligned(1))
    gates, cells = torch.ones(1, 2), torch.tensor([[610, 1833]])
    cosines_at(network, *features, gates, cells).sum().backward()
    for projection in network.projections:
        gradient = projection.mix.weight.grad
        assert gradient is not None and torch.isfinite(gradient).all() and gradient.any()
    # What begins as the backbone's own maps gives the matches that are learned from.
    own = match_own_maps(network, source, target, range(2), engine)
    wanted = torch.ones(1, 3600, dtype=torch.bool)
    with torch.no_grad():
        expected = network.match_selected(
            *(network.embed(m) for m in (source, target)), [(0, 0)], gates, wanted, engine
        )
    assert torch.equal(own.points, expected.points)
    assert not torch.equal(own.points, own.points.round())
