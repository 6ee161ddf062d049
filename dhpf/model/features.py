"""Features of images: the projected maps of the kept layers, their norms, and the gates' activations.

Projections are learned transforms of each layer's map before maps are compared (docs/algorithm.md, section 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dhpf.config import FeaturesName, ModelConfig, VotesName
from dhpf.frame import interpolation_matrix, to_grid
from dhpf.model.correlation import squared_norms

LINEAR_BELOW = 1e-4
"""Magnitude below which `signed_sqrt` has hardly begun to be a root; its slope is at most 100."""


def build_projections(config: ModelConfig, widths: tuple[int, ...]) -> nn.ModuleList:
    """A projection for each kept layer, of the given widths; no projections where maps are compared as they are."""
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
    """A layer's own map plus a linear mix of its channels, which is 0 before training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, side, side) -> the same, of at most the grid's side. Mixing and resizing may change places."""
        maps = to_grid(maps).contiguous()
        mixed: Tensor = maps + self.mix(maps)
        return mixed


@torch.no_grad()
def start_near_identity(projections: Iterable[nn.Module], maps: list[Tensor]) -> None:
    """Starts learned projections close to the features that the frozen backbone gives, instead of at random.

    The convolution starts as the identity, or as orthogonal rows where it has fewer output channels. The normalisation
    starts with the statistics of `maps` and with one scale per layer, so that layers count for as much as before.

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


@dataclass(frozen=True)
class ImageFeatures:
    """What the network knows of B images.

    Attributes:
        maps: for each layer that the model keeps: (B, C_l, side_l, side_l) projected maps, side_l <= 60; they may be
            kept in half precision, engines compute in single all the same.
        squared_norms: (B, L, N) squared length of each layer's feature at each grid cell.
        gate_activations: (B, L, H) the image's part of the gates' input; H is 32, or 0 where no gate is learned.
        foreground: (B, N) how much each grid cell's votes count (`foreground_weights`); (B, 0) where all count alike.
    """

    maps: tuple[Tensor, ...]
    squared_norms: Tensor
    gate_activations: Tensor
    foreground: Tensor

    def __len__(self) -> int:
        return len(self.squared_norms)

    def __getitem__(self, index: Tensor) -> ImageFeatures:
        """The features of the images that a (B',) index tensor names, repeats allowed."""
        maps = tuple(m[index] for m in self.maps)
        return ImageFeatures(maps, self.squared_norms[index], self.gate_activations[index], self.foreground[index])

    @property
    def num_bytes(self) -> int:
        """Bytes of memory that the features take."""
        return sum(
            t.numel() * t.element_size()
            for t in (*self.maps, self.squared_norms, self.gate_activations, self.foreground)
        )

    def in_half_precision(self) -> ImageFeatures:
        """The same features in about half of the memory; values beyond the range of float16 become its largest."""
        limit = torch.finfo(torch.float16).max
        return replace(self, maps=tuple(m.clamp(-limit, limit).half() for m in self.maps))

    def in_single_precision(self) -> ImageFeatures:
        """The same features in float32, which engines compute with."""
        return replace(self, maps=tuple(m.float() for m in self.maps))

    @classmethod
    def concatenate(cls, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        """The features of several batches of images as one batch."""
        return cls(
            maps=tuple(torch.cat(layer) for layer in zip(*(p.maps for p in parts), strict=True)),
            squared_norms=torch.cat([p.squared_norms for p in parts]),
            gate_activations=torch.cat([p.gate_activations for p in parts]),
            foreground=torch.cat([p.foreground for p in parts]),
        )


@dataclass(frozen=True)
class ImageParts:
    """What the features of B images are made of.

    Attributes:
        maps: the (B, C_l, side_l, side_l) projected maps of their layers.
        gate_activations, foreground: as in ImageFeatures.
    """

    maps: list[Tensor]
    gate_activations: Tensor
    foreground: Tensor


def image_features(parts: ImageParts, kind: FeaturesName) -> ImageFeatures:
    """Features of B images."""
    return features_of_batches([parts], kind)[0]


def features_of_batches(batches: Sequence[ImageParts], kind: FeaturesName) -> list[ImageFeatures]:
    """`image_features` of several batches of images, whose norms are computed together."""
    on_grid = [[to_grid(m).contiguous() for m in parts.maps] for parts in batches]
    if kind == "signed-sqrt":
        on_grid = [[signed_sqrt(m) for m in maps] for maps in on_grid]
    num_layers = len(on_grid[0])
    norms = squared_norms([m for maps in on_grid for m in maps])
    return [
        ImageFeatures(
            tuple(maps),
            torch.stack(norms[n * num_layers : (n + 1) * num_layers], dim=1),
            parts.gate_activations,
            parts.foreground,
        )
        for n, (maps, parts) in enumerate(zip(on_grid, batches, strict=True))
    ]


def signed_sqrt(maps: Tensor) -> Tensor:
    """The square root of each value's magnitude, with the value's sign; linear near 0, where a root has no slope."""
    return maps * (maps.abs() + LINEAR_BELOW).rsqrt()


@torch.no_grad()
def foreground_weights(deepest: Tensor, votes: VotesName) -> Tensor:
    """How much the votes of each grid cell count, from the backbone's own maps of the deepest layer that is kept.

    What the network recognises excites many of its deepest channels, a sky or a wall few.

    Args:
        deepest: (B, C, side, side).

    Returns:
        (B, N) mean magnitude of the cell's channels as a share of the image's highest one, or (B, 0) for "plain" votes.
    """
    if votes == "plain":
        return deepest.new_zeros(len(deepest), 0)
    strength = to_grid(deepest).abs().mean(dim=1)
    matrix = interpolation_matrix(strength.shape[-1], strength)
    on_grid = (matrix @ strength @ matrix.T).flatten(1)
    return on_grid / on_grid.amax(dim=1, keepdim=True).clamp(min=torch.finfo(on_grid.dtype).tiny)
