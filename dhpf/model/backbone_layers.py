"""The hyperpixel layers of a network: a chain of modules, or the outputs of some of its modules when it runs.

On CPUs a chain is made faster: its normalisations are folded into convolutions, whose weights are stored in the memory
layout of oneDNN.
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
        """The number of layers."""

    @abstractmethod
    def maps(self, images: Tensor, num_layers: int) -> list[Tensor]:
        """(B, C_l, side_l, side_l) of the first layers, of (B, 3, side, side) normalised images."""

    @abstractmethod
    def make_cheaper(self) -> None:
        """Makes the layers compute the same, up to rounding, in less time; this changes their weights."""


class ChainedLayers(nn.ModuleList, BackboneLayers):
    """A chain of layers: the first takes images, each other one the map of the layer before."""

    def maps(self, images: Tensor, num_layers: int) -> list[Tensor]:
        """See BackboneLayers."""
        maps, output = [], images
        for layer in list(self)[:num_layers]:
            output = layer(output)
            maps.append(output)
        return maps

    def make_cheaper(self) -> None:
        """Folds normalisation into convolutions.

        The stem is left as it is. It is the only layer of a pair for which no gate opens, and its features are so near
        zero that rounding would change their cosines.
        """
        for layer in list(self)[1:]:
            fold_batch_norms(layer)


class TappedLayers(BackboneLayers):
    """Outputs of some modules of a network, in the order in which they are computed.

    Args:
        network: is run up to the last of these modules.
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
        """Does nothing, because the order in which the network runs convolutions and normalisations is not known."""


class _LastLayerReached(Exception):
    """Ends a network's forward pass after the last layer that is wanted."""


def fold_batch_norms(module: nn.Module) -> None:
    """Folds each normalisation into the convolution before it; the new weights are computed in double precision.

    A frozen network's normalisation is a fixed scale and shift, which as a step of its own costs a pass over the map.
    """
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and convolution is not None:
            folded = fuse_conv_bn_eval(convolution[1].double(), copy.deepcopy(child).double()).float()
            folded.requires_grad_(False)
            setattr(module, convolution[0], PackedConv2d.of(folded) if type(folded) is nn.Conv2d else folded)
            setattr(module, name, nn.Identity().eval())
            convolution = None
        elif isinstance(child, nn.Conv2d):
            convolution = (name, child)
        elif not isinstance(child, nn.Identity):
            convolution = None
            fold_batch_norms(child)


_HAS_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class PackedConv2d(nn.Conv2d):
    """A frozen convolution; on a CPU its weights are also kept in the order in which oneDNN computes.

    Otherwise oneDNN reorders them at every call, which for a single image takes a sixth of a ResNet-101's time.
    """

    _packed: Tensor | None = None

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> PackedConv2d:
        """Makes a packed convolution of another one, whose weights it takes over."""
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
            # The layout is chosen for the side of the first images and a batch of one, so that results do not depend on
            # the size of the first batch.
            weight, shape = self.weight.detach(), [1, *input.shape[1:]]
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, self.groups, shape)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input, self._packed, self.bias, *geometry, self.groups, "none", [], ""
        )
        return result
