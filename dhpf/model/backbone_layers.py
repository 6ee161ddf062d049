"""The hyperpixel layers of a network: a chain of modules, or what some modules of a network give when it runs.

On CPUs, a chain is made cheaper: its normalisations are folded into convolutions, whose weights are kept as oneDNN
wants them.
"""

from __future__ import annotations

import copy
import threading
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class BackboneLayers(nn.Module):
    """The hyperpixel layers of a network."""

    @abstractmethod
    def __len__(self) -> int:
        """How many they are."""

    @abstractmethod
    def maps(self, images: Tensor, num_layers: int) -> list[Tensor]:
        """(B, C_l, side_l, side_l) of the first layers, of (B, 3, side, side) normalised images."""

    @abstractmethod
    def make_cheaper(self) -> None:
        """Computes the same, but for rounding, in less time; weights no longer look as they came."""


class ChainedLayers(nn.ModuleList, BackboneLayers):
    """Layers of which each takes the map of the one before; the first takes images."""

    def maps(self, images: Tensor, num_layers: int) -> list[Tensor]:
        """See BackboneLayers."""
        maps, output = [], images
        for layer in list(self)[:num_layers]:
            output = layer(output)
            maps.append(output)
        return maps

    def make_cheaper(self) -> None:
        """Folds normalisation into convolutions.

        The stem stays as it is: where no gate opens it answers alone, by features so near zero that their cosines show
        the last digit of the arithmetic.
        """
        for layer in list(self)[1:]:
            fold_batch_norms(layer)


class TappedLayers(BackboneLayers):
    """Outputs of some modules of a network, in the order in which they are computed.

    Args:
        network: gives them when it is called; what comes after the last one is never run.
        names: of the modules, each of which runs once.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def maps(self, images: Tensor, num_layers: int) -> list[Tensor]:
        """See BackboneLayers."""
        maps: list[Tensor] = []
        thread = threading.get_ident()

        def tap(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if threading.get_ident() != thread:  # two threads may describe images at once
                return
            maps.append(output.contiguous(memory_format=torch.channels_last))
            if len(maps) == num_layers:
                raise _LastLayerReached

        taps = [self.network.get_submodule(name).register_forward_hook(tap) for name in self.names[:num_layers]]
        try:
            self.network(images)
        except _LastLayerReached:
            return maps
        finally:
            for handle in taps:
                handle.remove()
        raise AssertionError("a layer that was found has not run")

    def make_cheaper(self) -> None:
        """Nothing: in which order a network's convolutions and normalisations run is not known."""


class _LastLayerReached(Exception):
    """Ends a network's forward pass where nothing more is wanted of it."""


def fold_batch_norms(module: nn.Module) -> None:
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
            fold_batch_norms(child)


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
