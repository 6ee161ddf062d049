"""Makes a frozen CNN faster: folds normalisation into convolutions and packs their weights for the CPU."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


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
