"""The kinds of layer selection, which decide by which layers of a backbone a pair of images is matched.

A kind is one entry of LAYER_SELECTIONS, with its name in SelectionName. Nothing else knows the kinds apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

SelectionName = Literal["dynamic", "fixed", "all", "last"]
ProjectionName = Literal["learned", "residual", "none"]
GatesName = Literal["learned", "open"]

PUBLISHED_LAYERS: Mapping[str, Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "resnet50": {"pf-pascal": (2, 7, 11, 12, 13)},
        "resnet101": {"pf-pascal": (2, 17, 21, 22, 25, 26, 28), "spair-71k": (0, 8, 20, 21, 26, 28, 29, 30)},
    }
)
"""Layer sets of Hyperpixel Flow (Min, Lee, Ponce, Cho, ICCV 2019), by backbone and benchmark."""


@dataclass(frozen=True)
class LayerSelection:
    """A kind of layer selection.

    Attributes:
        keep: (number of layers of the backbone, layers that model.layers names) -> the layers that the model keeps,
            ascending.
        gates: "learned" gates choose among the kept layers for each pair; with "open" ones a pair uses all of them.
        exponents: the power of the rectified cosine where model.exponent gives none, for each projection that the kind
            can learn or go without. With any other projection it takes the backbone's own maps, as with "none".
        takes_layers: whether model.layers has to name layers; otherwise it must be empty.
    """

    keep: Callable[[int, tuple[int, ...]], tuple[int, ...]]
    gates: GatesName
    exponents: Mapping[ProjectionName, int]
    takes_layers: bool = False


def _every(num_layers: int, named: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(num_layers))


def _last(num_layers: int, named: tuple[int, ...]) -> tuple[int, ...]:
    return (num_layers - 1,)


def _named(num_layers: int, named: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(named)))


LAYER_SELECTIONS: Mapping[SelectionName, LayerSelection] = MappingProxyType(
    {
        # Where the backbone's own maps are compared by choice, or are what a projection begins with, the power is 3 as
        # in Hyperpixel Flow.
        "dynamic": LayerSelection(_every, "learned", {"learned": 2, "residual": 3, "none": 3}),
        "fixed": LayerSelection(_named, "open", {"residual": 3, "none": 3}, takes_layers=True),
        "all": LayerSelection(_every, "open", {"none": 2}),
        "last": LayerSelection(_last, "open", {"none": 2}),
    }
)
