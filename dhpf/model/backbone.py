"""Backbones: frozen CNNs that give the hyperpixel layers of an image (docs/algorithm.md, section 2).

Layer 0 is the stem's output, layer k the k-th block's. Which network a name means stands in dhpf.model.architectures,
how layers are found in a network in dhpf.model.backbone_layers.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from dhpf.model.architectures import Statistics, architecture_of, published_weights
from dhpf.model.backbone_layers import BackboneLayers
from dhpf.model.weight_files import StateDict, load_strictly, read_state_dict


class Backbone(nn.Module):
    """A frozen CNN that gives every hyperpixel layer of an image.

    Attributes:
        name: as in ModelConfig.backbone.
        widths: channels of each layer.
        fingerprint: sha256 over names and values of the weights as they came: tells whether two backbones are the same
            network.
        mean, std: how its inputs are normalised, per RGB channel of values in [0, 1].
    """

    widths: tuple[int, ...]
    fingerprint: str
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, layers: BackboneLayers, mean: Statistics, std: Statistics) -> None:
        super().__init__()
        self.name = name
        self.layers = layers
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # a tenth faster on CPUs
        super().train(False)
        self.fingerprint = _digest(self.state_dict())
        self.widths = tuple(m.shape[1] for m in self(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)))
        layers.make_cheaper()

    def __len__(self) -> int:
        return len(self.layers)

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode, in training too (docs/algorithm.md, section 11)."""
        return self

    @torch.no_grad()
    def forward(self, images: Tensor, last_layer: int | None = None) -> list[Tensor]:
        """The maps of all layers up to `last_layer` (default: all).

        Args:
            images: (B, 3, side, side) uint8.

        Returns:
            one (B, widths[l], side_l, side_l) map per layer, channels last in memory.
        """
        normalised = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        return self.layers.maps(normalised, len(self) if last_layer is None else last_layer + 1)


def _digest(state: StateDict) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().float().cpu().numpy()).tobytes())
    return digest.hexdigest()


def load_backbone(name: str, weights: str | None = None) -> Backbone:
    """Builds a backbone with its published ImageNet weights, or with those of a file.

    Args:
        name: as in ModelConfig.backbone.
        weights: a file with the network's own state dict (torch or safetensors), or one that an installed Python
            package brings ("package:NAME/PATH"); None: the published weights.

    Raises:
        InputError: the network is no CNN, the weights cannot be fetched, or the file is missing, not readable without
            pickled code, or of another network.
    """
    architecture = architecture_of(name)
    network = architecture.build()
    layers = architecture.layers(network)
    state = published_weights(name) if weights is None else read_state_dict(weights)
    load_strictly(network, state, name, weights or "the published weights")
    return Backbone(name, layers, architecture.mean, architecture.std)
