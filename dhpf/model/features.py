"""Features of images: the projected maps of the kept layers, their norms, and the gates' activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dhpf.frame import to_grid
from dhpf.model.correlation import squared_norms


@dataclass(frozen=True)
class ImageFeatures:
    """What the network knows of B images.

    Attributes:
        maps: for each layer that the model keeps: (B, C_l, side_l, side_l) projected maps, side_l <= 60; they may be
            kept in half precision, engines compute in single all the same.
        squared_norms: (B, L, N) squared length of each layer's feature at each grid cell.
        gate_activations: (B, L, H) what the gates know of each image; H is 32, or 0 where no gate is learned.
    """

    maps: tuple[Tensor, ...]
    squared_norms: Tensor
    gate_activations: Tensor

    def __len__(self) -> int:
        return len(self.squared_norms)

    def __getitem__(self, index: Tensor) -> ImageFeatures:
        """The features of the images that a (B',) index tensor names, repeats allowed."""
        maps = tuple(m[index] for m in self.maps)
        return ImageFeatures(maps, self.squared_norms[index], self.gate_activations[index])

    @property
    def num_bytes(self) -> int:
        """Memory that they take."""
        return sum(t.numel() * t.element_size() for t in (*self.maps, self.squared_norms, self.gate_activations))

    def in_half_precision(self) -> ImageFeatures:
        """The same features in about half of the memory; what a half cannot hold becomes its largest value."""
        limit = torch.finfo(torch.float16).max
        return replace(self, maps=tuple(m.clamp(-limit, limit).half() for m in self.maps))

    def in_single_precision(self) -> ImageFeatures:
        """The same features as they can be computed with."""
        return replace(self, maps=tuple(m.float() for m in self.maps))

    @classmethod
    def concatenate(cls, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        """The features of several batches of images as one batch."""
        return cls(
            maps=tuple(torch.cat(layer) for layer in zip(*(p.maps for p in parts), strict=True)),
            squared_norms=torch.cat([p.squared_norms for p in parts]),
            gate_activations=torch.cat([p.gate_activations for p in parts]),
        )


def image_features(maps: list[Tensor], activations: Tensor) -> ImageFeatures:
    """Features of B images from the (B, C_l, side_l, side_l) maps of their layers and what the gates know of them."""
    return features_of_batches([maps], [activations])[0]


def features_of_batches(batches: Sequence[list[Tensor]], activations: Sequence[Tensor]) -> list[ImageFeatures]:
    """`image_features` of several batches of images, whose norms are taken together."""
    on_grid = [[to_grid(m).contiguous() for m in maps] for maps in batches]
    num_layers = len(on_grid[0])
    norms = squared_norms([m for maps in on_grid for m in maps])
    return [
        ImageFeatures(tuple(maps), torch.stack(norms[n * num_layers : (n + 1) * num_layers], dim=1), of_gates)
        for n, (maps, of_gates) in enumerate(zip(on_grid, activations, strict=True))
    ]
