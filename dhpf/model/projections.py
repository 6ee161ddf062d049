"""Projections: learned transforms of each layer's map before maps are compared (docs/algorithm.md, section 4)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dhpf.config import ModelConfig
from dhpf.frame import to_grid


def build_projections(config: ModelConfig, widths: tuple[int, ...]) -> nn.ModuleList:
    """One projection for each of the kept layers, whose widths are given; none where the maps are taken as they are."""
    match config.used_projection:
        case "learned":
            return nn.ModuleList(_transform(width, config.projection_divisor) for width in widths)
        case "residual":
            return nn.ModuleList(ResidualProjection(width) for width in widths)
        case "none":
            return nn.ModuleList()


def _transform(width: int, divisor: int) -> nn.Sequential:
    """The paper's convolutional feature transform: width -> width / divisor channels (at least 1)."""
    narrow = max(1, width // divisor)
    return nn.Sequential(nn.Conv2d(width, narrow, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU())


class ResidualProjection(nn.Module):
    """A layer's own map plus a linear mix of its channels; begins as the map itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, side, side) -> the same, of at most the grid's side; mixing and resizing may change places."""
        maps = to_grid(maps).contiguous()
        mixed: Tensor = maps + self.mix(maps)
        return mixed


@torch.no_grad()
def start_near_identity(projections: Iterable[nn.Module], maps: list[Tensor]) -> None:
    """Starts learned projections close to the features that the frozen backbone gives, instead of at random.

    Channels are mixed by the identity, or by orthogonal rows where there are fewer; normalisation starts with the
    statistics of `maps` and with one scale per layer, so that layers count for as much as they do in the backbone.

    Args:
        projections: of a model whose used projection is "learned".
        maps: the backbone's maps of a few images, one for each projection.
    """
    for projection, layer in zip(projections, maps, strict=True):
        mix, normalise = projection[0], projection[1]  # type: ignore[index]
        if mix.weight.shape[0] == mix.weight.shape[1]:
            nn.init.dirac_(mix.weight)
        else:
            nn.init.orthogonal_(mix.weight)
        mixed = mix(layer)
        variance, mean = torch.var_mean(mixed, dim=(0, 2, 3))
        normalise.running_mean.copy_(mean)
        normalise.running_var.copy_(variance)
        normalise.weight.fill_(float(variance.mean().sqrt()))
        normalise.bias.zero_()
