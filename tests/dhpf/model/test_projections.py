import torch

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.model.projections import build_projections, start_near_identity


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
