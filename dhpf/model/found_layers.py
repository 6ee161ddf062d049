"""Finds the hyperpixel layers of a network of timm or torchvision that is not built in.

They are the outputs of the stem and of each block. A block is a unit such as a residual, MBConv, ConvNeXt or Inception
unit: a module with several convolutions or linear maps that is not just a sequence of such units. A network without
blocks, such as VGG, has a layer after each activation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dhpf.errors import InputError
from dhpf.model.backbone_layers import TappedLayers

PROBED_SIDES = (128, 192)
"""Sides in pixels of the blank images by which layers are found; a CNN's maps grow with the image."""

_SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_WEIGHTED = (nn.Conv2d, nn.Linear)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish)


def found_layers(network: nn.Module, backbone: str) -> TappedLayers:
    """The stem's and each block's output of a CNN; modules behind the last block are taken out of the network.

    Args:
        backbone: its name, for errors.

    Raises:
        InputError: the network's blocks do not give (B, C, side, side) maps that grow with the image.
    """
    network.eval()
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # what is tapped must not change afterwards
    runs = [_run(network, side, backbone) for side in PROBED_SIDES]
    small, large = runs
    names = _stem_and_blocks(network, small) or _activations(network, small)
    if not names:
        raise InputError(f"model.backbone: {backbone} has no convolutional blocks whose outputs could be layers")
    for name in names:
        maps = [run.outputs[name][-1].output for run in (small, large) if name in run.outputs]
        if len(maps) < 2 or not _are_spatial(*maps) or any(len(run.outputs[name]) > 1 for run in runs):
            raise InputError(
                f"model.backbone: {backbone} is no CNN: its block {name!r} gives no (channels, height, width) map that "
                "grows with the image"
            )
    for name in _behind(network, small, names[-1]):
        setattr(network, name, nn.Identity())
    return TappedLayers(network, names)


@dataclass(frozen=True)
class _Output:
    """The output of a module; `version` tells whether the tensor was changed in place since."""

    output: Any
    version: int


@dataclass(frozen=True)
class _Run:
    """A forward pass.

    Attributes:
        begun, ended: names of modules, in the order in which they began and ended, each of them with a number that
            tells the order of both.
        outputs: by module, one for each time that it ran.
    """

    begun: dict[str, int]
    ended: dict[str, int]
    outputs: dict[str, list[_Output]]


@torch.no_grad()
def _run(network: nn.Module, side: int, backbone: str) -> _Run:
    run, taps = _Run({}, {}, {}), []

    def watch(name: str, module: nn.Module) -> None:
        def begin(module: nn.Module, inputs: Any) -> None:
            run.begun.setdefault(name, len(run.begun) + len(run.ended))

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            run.ended[name] = len(run.begun) + len(run.ended)
            version = output._version if isinstance(output, Tensor) else 0
            run.outputs.setdefault(name, []).append(_Output(output, version))

        taps.extend([module.register_forward_pre_hook(begin), module.register_forward_hook(end)])

    for name, module in network.named_modules():
        if name:
            watch(name, module)
    try:
        network(torch.zeros(1, 3, side, side))
    except Exception as error:  # networks raise many kinds of errors for images that they do not take
        raise InputError(
            f"model.backbone: {backbone} is no CNN: it does not take images of {side} x {side} pixels "
            f"({' '.join(str(error).split())})"
        ) from error
    finally:
        for tap in taps:
            tap.remove()
    return run


def _stem_and_blocks(network: nn.Module, run: _Run) -> tuple[str, ...]:
    """Names of the last module before the first block, and of the blocks, in the order in which they run."""
    blocks = sorted(_blocks(network, "", run), key=run.ended.__getitem__)
    if not blocks:
        return ()
    first = min(run.begun[name] for name in blocks)
    before = [name for name, number in run.ended.items() if number < first and _is_map(run.outputs[name][-1].output)]
    once = [name for name in before if len(run.outputs[name]) == 1]
    return (*once[-1:], *blocks)


def _activations(network: nn.Module, run: _Run) -> tuple[str, ...]:
    """Names of the activations that give maps, in the order in which they run."""
    modules = dict(network.named_modules())
    return tuple(
        name for name in run.ended if isinstance(modules[name], _ACTIVATIONS) and _is_map(run.outputs[name][-1].output)
    )


def _blocks(module: nn.Module, prefix: str, run: _Run) -> Iterator[str]:
    for name, unit in _units(module, prefix):
        if name in run.outputs:
            yield from _blocks(unit, name, run) if _is_sequence_of_units(unit, name, run) else (name,)


def _units(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules below one that have several weights; plain sequences are searched through."""
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if sum(isinstance(m, _WEIGHTED) for m in child.modules()) < 2:
            continue
        if type(child) in _SEQUENCES:
            yield from _units(child, path)
        else:
            yield path, child


def _is_sequence_of_units(module: nn.Module, name: str, run: _Run) -> bool:
    """Whether a module is a stage of a network: its units are of one kind, and its output is that of the last one."""
    units = [(path, unit) for path, unit in _units(module, name) if path in run.outputs]
    of_module = run.outputs[name][-1]
    if units and not isinstance(of_module.output, Tensor):
        return True  # several maps, as a network of several resolutions gives: each of its units gives one
    kinds = Counter(type(unit) for _, unit in units)
    if not kinds or max(kinds.values()) < 2:
        return False
    last = run.outputs[max((path for path, _ in units), key=run.ended.__getitem__)][-1]
    return of_module.output is last.output and of_module.version == last.version


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dim() == 4


def _are_spatial(small: Any, large: Any) -> bool:
    """Whether both are square maps of the same channels, the second one larger."""
    if not (_is_map(small) and _is_map(large)) or small.shape[1] != large.shape[1]:
        return False
    is_square = all(m.shape[2] == m.shape[3] for m in (small, large))
    return is_square and 1 < small.shape[2] < large.shape[2]


def _behind(network: nn.Module, run: _Run, last: str) -> list[str]:
    """The network's own children that only run after the last layer, or never."""
    end = run.ended[last]
    needed = {name.partition(".")[0] for name, number in run.begun.items() if number < end}
    return [name for name, _ in network.named_children() if name not in needed]
