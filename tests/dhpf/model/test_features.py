import torch

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.model.features import (
    ImageFeatures,
    build_projections,
    foreground_weights,
    signed_sqrt,
    start_near_identity,
)
from dhpf.model.network import HyperpixelNetwork


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
    features = ImageFeatures((torch.tensor([1e6, -1e6, 1.0]),), torch.ones(1), torch.zeros(1, 1, 0), torch.zeros(1, 0))
    assert features.in_half_precision().maps[0].tolist() == [65504, -65504, 1]


def test_a_signed_root_keeps_signs_and_has_a_slope_at_0() -> None:
    maps = torch.tensor([-4.0, 0.0, 9.0], requires_grad=True)
    roots = signed_sqrt(maps)
    assert torch.allclose(roots, torch.tensor([-2.0, 0.0, 3.0]), atol=1e-3)
    roots.sum().backward()
    assert maps.grad is not None and torch.isfinite(maps.grad).all() and maps.grad[1] > 0


def test_the_foreground_is_where_the_deepest_layer_is_excited() -> None:
    deepest = torch.zeros(2, 3, 5, 5)
    deepest[0, 1, 2, 2] = -6.0
    weights = foreground_weights(deepest, "foreground").view(2, 60, 60)
    assert weights[0].max() == 1 and weights[0, 29:31, 29:31].min() > 0.9
    assert weights[0, 0].max() == 0 and weights[1].abs().max() == 0, "an empty image has no foreground"
    assert foreground_weights(deepest, "plain").shape == (2, 0)


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


@torch.no_grad()
def test_learned_projections_can_start_near_the_backbones_own_features() -> None:
    projections = build_projections(ModelConfig(projection_divisor=1), (6, 4)).eval()
    maps = [3 * torch.rand(5, width, 8, 8) + 1 for width in (6, 4)]
    start_near_identity(projections, maps)
    for project, layer in zip(projections, maps, strict=True):
        variance, mean = torch.var_mean(layer, dim=(0, 2, 3), keepdim=True)
        scale = variance.mean().sqrt()
        expected = ((layer - mean) / (variance + 1e-5).sqrt() * scale).relu()
        assert torch.allclose(project(layer), expected, atol=1e-4)


def test_narrowing_projections_start_with_orthogonal_rows() -> None:
    (projection,) = build_projections(ModelConfig(projection_divisor=2), (8,))
    start_near_identity([projection], [torch.rand(3, 8, 4, 4)])
    rows = projection[0].weight.detach().flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(4), atol=1e-5)
