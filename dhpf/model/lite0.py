"""EfficientNet-Lite0 up to its last block, the network whose weights an installed package brings.

It is defined here because importing a library of networks takes longer than matching two images. Names of modules are
those that timm gives to `tf_efficientnet_lite0`, so that files with weights under these names can be loaded, too.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

_STEM_WIDTH = 32

# Of each stage: input and output width, factor of the width within blocks, kernel's side, first block's stride, blocks.
_STAGES = (
    (32, 16, 1, 3, 1, 1),
    (16, 24, 6, 3, 2, 2),
    (24, 40, 6, 5, 2, 2),
    (40, 80, 6, 3, 2, 3),
    (80, 112, 6, 5, 1, 3),
    (112, 192, 6, 5, 2, 4),
    (192, 320, 6, 3, 1, 1),
)

_UNUSED_DRAWS = 15_518_864


class EfficientNetLite0(nn.Module):
    """The network without its classifier, with weights drawn at random."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = HalvingConv2d(3, _STEM_WIDTH, 3, stride=2, bias=False)
        self.bn1 = _norm(_STEM_WIDTH)
        self.relu = nn.ReLU6(inplace=True)
        self.blocks = nn.Sequential(*(nn.Sequential(*_stage(*stage)) for stage in _STAGES))
        # Version 0.1 drew more random numbers here. They are still drawn, so that a seed gives the training it gave.
        torch.empty(_UNUSED_DRAWS).uniform_()

    def forward(self, images: Tensor) -> Tensor:
        """The last block's map of normalised images."""
        output: Tensor = self.blocks(self.relu(self.bn1(self.conv_stem(images))))
        return output


class HalvingConv2d(nn.Conv2d):
    """A convolution of stride 2 that pads as TensorFlow does: where a pixel is left over, at the right and below."""

    def forward(self, input: Tensor) -> Tensor:
        (left, right), (top, bottom) = (self._padding_of(side) for side in (input.shape[-1], input.shape[-2]))
        return super().forward(functional.pad(input, (left, right, top, bottom)))

    def _padding_of(self, side: int) -> tuple[int, int]:
        total = max((-(-side // 2) - 1) * 2 + self.kernel_size[0] - side, 0)
        return total // 2, total - total // 2


class Block(nn.Sequential):
    """Convolutions one after the other; where the map keeps its shape, the input is added."""

    def __init__(self, modules: OrderedDict[str, nn.Module], adds_input: bool) -> None:
        super().__init__(modules)
        self.adds_input = adds_input

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return output + input if self.adds_input else output


def _stage(width_in: int, width_out: int, factor: int, kernel: int, stride: int, num_blocks: int) -> list[Block]:
    first = _block(width_in, width_out, factor, kernel, stride)
    return [first, *(_block(width_out, width_out, factor, kernel, 1) for _ in range(num_blocks - 1))]


def _block(width_in: int, width_out: int, factor: int, kernel: int, stride: int) -> Block:
    width = width_in * factor
    spatial = (
        HalvingConv2d(width, width, kernel, stride=2, groups=width, bias=False)
        if stride == 2
        else nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
    )
    narrow = nn.Conv2d(width, width_out, 1, bias=False)
    if factor == 1:
        convolutions = {"conv_dw": spatial, "conv_pw": narrow}
    else:
        convolutions = {"conv_pw": nn.Conv2d(width_in, width, 1, bias=False), "conv_dw": spatial, "conv_pwl": narrow}
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (name, convolution) in enumerate(convolutions.items(), start=1):
        modules[name] = convolution
        modules[f"bn{number}"] = _norm(convolution.out_channels)
        if number < len(convolutions):
            modules[f"relu{number}"] = nn.ReLU6(inplace=True)
    return Block(modules, adds_input=stride == 1 and width_in == width_out)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)
