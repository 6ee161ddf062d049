import pytest
import skimage.data
import torch

from dhpf.checkpoint import build_network
from dhpf.config import EngineName, ModelConfig
from dhpf.errors import InputError
from dhpf.frame import to_square
from dhpf.model.engines.choose import choose_engine
from dhpf.model.global_batch import TrainingPairs
from dhpf.model.network import HyperpixelNetwork, ImageFeatures


@pytest.fixture(scope="module")
def squares() -> torch.Tensor:
    photos = [skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket()]
    return torch.stack([to_square(photo, 240) for photo in photos])


@pytest.fixture(scope="module")
def dynamic() -> HyperpixelNetwork:
    torch.manual_seed(3)
    return build_network(ModelConfig(projection_divisor=2))


@torch.inference_mode()
def test_sixteen_pairs_at_once_are_sixteen_single_pairs(dynamic: HyperpixelNetwork, squares: torch.Tensor) -> None:
    features = dynamic.describe(squares)
    source, target = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    batch = dynamic.correlate(features[source], features[target])
    assert len(batch.selection.unique(dim=0)) > 1, "pairs of this test should differ in their layers"
    for number in range(16):
        one, other = source[number : number + 1], target[number : number + 1]
        single = dynamic.correlate(dynamic.describe(squares[one]), dynamic.describe(squares[other]))
        assert torch.equal(single.selection[0], batch.selection[number])
        difference = (single.correlation[0] - batch.correlation[number]).abs().max()
        assert difference <= 1e-5 * single.correlation.max()


@torch.inference_mode()
@pytest.mark.parametrize("engine_name", ["compiled", "torch"])
def test_images_for_one_pair_are_projected_only_where_it_looks(
    dynamic: HyperpixelNetwork, squares: torch.Tensor, engine_name: EngineName
) -> None:
    engine, wanted = choose_engine(engine_name), torch.ones(1, 3600, dtype=torch.bool)
    features = dynamic.describe(squares[:2])
    known, layers = dynamic.match(features, features, [(0, 1)], wanted, engine)
    assert 0 < layers.sum() < len(dynamic.layers)
    projected: list[int] = []
    hooks = [
        project.register_forward_hook(lambda *_, layer=layer: projected.append(layer))
        for layer, project in enumerate(dynamic.projections)
    ]
    found, selected = dynamic.match_images(squares[:2], [(0, 1)], wanted, engine)
    for hook in hooks:
        hook.remove()
    assert projected == selected[0].nonzero().flatten().tolist()
    assert torch.equal(selected, layers)
    assert torch.equal(found.filtered_target, known.filtered_target)
    assert torch.allclose(found.best_score, known.best_score, rtol=1e-6)


@torch.inference_mode()
def test_features_in_half_precision_match_alike_in_less_memory(squares: torch.Tensor) -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(5, 8, 10, 11, 15)))
    whole = network.describe(squares[:2])
    half = whole.in_half_precision()
    assert half.num_bytes < 0.6 * whole.num_bytes
    for name in ("compiled", "torch"):
        engine = choose_engine(name)  # type: ignore[arg-type]
        wanted = torch.ones(1, 3600, dtype=torch.bool)
        found, other = (network.match(f, f, [(0, 1)], wanted, engine)[0] for f in (whole, half))
        # Where two targets are as good as each other, the last bit decides.
        assert (found.filtered_target == other.filtered_target).float().mean() > 0.99
        assert torch.allclose(found.best_score, other.best_score, rtol=1e-3)


def test_what_a_half_cannot_hold_becomes_its_largest_value() -> None:
    features = ImageFeatures((torch.tensor([1e6, -1e6, 1.0]),), torch.ones(1), torch.zeros(1, 1, 0))
    assert features.in_half_precision().maps[0].tolist() == [65504, -65504, 1]


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (ModelConfig(selection="fixed", layers=(11, 5)), [5, 11]),
        (ModelConfig(selection="all"), list(range(17))),
        (ModelConfig(selection="last"), [16]),
    ],
)
def test_selections_without_gates(config: ModelConfig, layers: list[int], squares: torch.Tensor) -> None:
    network = build_network(config)
    with torch.inference_mode():
        features = network.describe(squares[:1])
        output = network.correlate(features, features)
    assert output.selection[0].nonzero().flatten().tolist() == layers
    if layers == [16]:
        return  # 8 x 8 cells say too little to tell neighbours apart
    # An image against itself: almost every cell matches itself.
    assert (output.correlation[0].argmax(1) == torch.arange(3600)).float().mean() > 0.97


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="layers 0 to 16, not 17"):
        build_network(ModelConfig(selection="fixed", layers=(3, 17)))


@torch.inference_mode()
def test_a_larger_image_fills_the_same_grid(squares: torch.Tensor) -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(0, 4, 11), image_side=400))
    features = network.describe(torch.stack([to_square(skimage.data.chelsea(), 400)]))
    assert [m.shape[-1] for m in features.maps] == [60, 50, 25]
    assert network.correlate(features, features).correlation.shape == (1, 3600, 3600)


@torch.inference_mode()
def test_rows_of_the_strong_loss_are_rows_of_the_correlation(dynamic: HyperpixelNetwork, squares: torch.Tensor) -> None:
    features = dynamic.describe(squares[:2])
    source, target = features[torch.tensor([0])], features[torch.tensor([1])]
    output = dynamic.correlate(source, target)
    cells = torch.tensor([[0, 77, 3599]])
    gates = dynamic.select(source, target)
    rows = dynamic.correlate_cells(source, target, gates, cells, output.geometric_scores)
    assert torch.allclose(rows[0], output.correlation[0][cells[0]], rtol=1e-3, atol=1e-5 * output.correlation.max())


def test_unselected_layers_get_no_gradient_from_the_correlation(dynamic: HyperpixelNetwork) -> None:
    network = build_network(ModelConfig(projection_divisor=8)).train()
    maps = network.extract(torch.randint(0, 255, (4, 3, 240, 240), dtype=torch.uint8))
    source, target = network.embed_step([m[:2] for m in maps], [m[2:] for m in maps], TrainingPairs.aligned(2))
    gates = torch.zeros(2, 17)
    gates[:, 7] = 1
    scores = torch.ones(2, 119, 119)
    network.correlate_cells(source, target, gates, torch.tensor([[10], [20]]), scores).sum().backward()
    touched = {n for n, p in enumerate(network.projections) if p[0].weight.grad is not None and p[0].weight.grad.any()}
    assert touched == {7}


def test_features_are_taken_and_joined_by_image(dynamic: HyperpixelNetwork, squares: torch.Tensor) -> None:
    with torch.inference_mode():
        whole = dynamic.describe(squares)
        joined = ImageFeatures.concatenate([whole[torch.tensor([0, 1])], whole[torch.tensor([2, 3])]])
    assert len(joined) == 4
    assert all(torch.equal(a, b) for a, b in zip(whole.maps, joined.maps, strict=True))
    assert torch.equal(whole.gate_activations, joined.gate_activations)


@torch.inference_mode()
def test_residual_projections_begin_as_the_backbones_own_maps_and_add_a_mix_of_channels(squares: torch.Tensor) -> None:
    network = build_network(ModelConfig(projection="residual"))
    own = build_network(ModelConfig(projection="none"))
    maps = own.extract(squares[:1])
    begun, expected = network.embed(maps), own.embed(maps)
    assert all(torch.equal(a, b) for a, b in zip(begun.maps, expected.maps, strict=True))
    generator = torch.Generator().manual_seed(0)
    mix = network.projections[5].mix.weight
    mix.copy_(torch.randn(mix.shape, generator=generator) * 0.1)
    changed = network.embed(maps).maps[5]
    before = expected.maps[5]
    by_hand = before + torch.einsum("dc,bcyx->bdyx", mix[:, :, 0, 0], before)
    assert torch.allclose(changed, by_hand, rtol=1e-4, atol=1e-4 * float(by_hand.abs().max()))
    assert not torch.allclose(changed, before, rtol=1e-2)


@torch.inference_mode()
def test_own_maps_match_as_fixed_layers_do(squares: torch.Tensor) -> None:
    layers, engine = (5, 11, 15), choose_engine("compiled")
    fixed = build_network(ModelConfig(selection="fixed", layers=layers))
    learning = build_network(ModelConfig(projection="residual"))
    learning.projections[11].mix.weight.fill_(1.0)  # what is learned does not show
    found = learning.match_own_maps(learning.extract(squares[:2]), learning.extract(squares[2:]), layers, engine)
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
    rows = network.correlate_cells(source, target, gates, cells, whole.geometric_scores)
    assert torch.allclose(rows[0], whole.correlation[0, cells[0]], rtol=1e-3, atol=1e-6 * float(rows.max()))
    cosines = network.cosines(source, target, gates, cells)
    assert cosines.min() >= -1 and cosines.max() <= 1 and cosines.requires_grad
    scores = network.hough.scores_at(whole.geometric_scores, cells)
    assert torch.allclose(rows, cosines.relu() ** 3 * scores)
