import pytest
import skimage.data
import torch

from dhpf.checkpoint import build_network
from dhpf.config import EngineName, ModelConfig
from dhpf.errors import InputError
from dhpf.frame import to_square
from dhpf.model.engines.choose import choose_engine
from dhpf.model.network import HyperpixelNetwork


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
def test_two_images_forward_are_their_features_correlated(dynamic: HyperpixelNetwork, squares: torch.Tensor) -> None:
    whole = dynamic(squares[:1], squares[1:2])
    expected = dynamic.correlate(dynamic.describe(squares[:1]), dynamic.describe(squares[1:2]))
    assert torch.equal(whole.correlation, expected.correlation)
    assert torch.equal(whole.selection, expected.selection)
