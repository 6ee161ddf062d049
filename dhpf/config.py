"""Configuration of a model and of its supervision: frozen, validated dataclasses, stored in checkpoints.

What each setting may say stands here too: names of backbones, files of weights, kinds of layer selection.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from dhpf.errors import InputError
from dhpf.regular_files import is_file

FRAME_SIDE = 240
"""Side in pixels of the frame in which cells, boxes and PCK are defined (docs/algorithm.md, section 1)."""

GRID_SIDE = 60
"""Cells per side of the feature grid: FRAME_SIDE / 4."""

SupervisionName = Literal["strong", "weak", "contrastive"]
HoughBinsName = Literal["current", "legacy"]
EngineName = Literal["auto", "torch", "compiled", "triton"]
FeaturesName = Literal["plain", "signed-sqrt"]
VotesName = Literal["plain", "foreground"]
ReadoutName = Literal["cell", "soft"]
JointSide = Literal[60, 30]
BordersName = Literal["kept", "left-out"]

HOUGH_BINS: tuple[HoughBinsName, ...] = ("current", "legacy")
ENGINES: tuple[EngineName, ...] = ("auto", "torch", "compiled", "triton")
"""Implementations of matching: auto takes the one made for the device; torch runs anywhere; compiled needs a CPU and
triton a CUDA GPU."""


def nearest_name(name: str, choices: Collection[str]) -> str:
    """A hint for an unknown name: the closest choice if one is close, and all choices."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}choices: {', '.join(sorted(choices))}"


def require_choice(what: str, value: str, choices: Collection[str]) -> None:
    """Raises InputError, naming the choices, unless `value` is one of them."""
    if value not in choices:
        raise InputError(f"{what}: unknown value {value!r}; {nearest_name(str(value), choices)}")


# -- which backbone -----------------------------------------------------------------------------------------------

BUILT_IN_BACKBONES = ("efficientnet_lite0", "resnet50", "resnet101")
"""The names of the ARCHITECTURES of dhpf.model.backbone, known without torch."""

PACKAGE = "package:"
"""Begins the name of a weights file that an installed package brings."""


def _timm_names() -> Collection[str]:
    import timm

    return [*timm.list_models(), *timm.list_pretrained()]


def _torchvision_names() -> Collection[str]:
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


LIBRARIES: Mapping[str, Callable[[], Collection[str]]] = MappingProxyType(
    {"timm": _timm_names, "torchvision": _torchvision_names}
)
"""What may stand before the colon, and what gives the names that may stand behind it.

A library is asked for its names only where one of them is looked for: importing it takes seconds.
"""


def split_name(backbone: str) -> tuple[str, str]:
    """(library, name in it) of a backbone; a built-in one is of library ""."""
    library, _, name = backbone.rpartition(":")
    return library, name


def require_backbone(backbone: str) -> None:
    """Raises InputError, with the nearest names, unless there is a backbone of that name."""
    library, name = split_name(backbone)
    if library and library not in LIBRARIES:
        raise InputError(f"model.backbone: unknown library {library!r} in {backbone!r}; choices: {_listed(LIBRARIES)}")
    patterns = [f"{name}:NAME" for name in LIBRARIES]
    names = LIBRARIES[library]() if library else BUILT_IN_BACKBONES
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    choices = f"{library} has {len(names)} networks" if library else f"choices: {_listed(names)}, {_listed(patterns)}"
    raise InputError(f"model.backbone: unknown value {backbone!r}; {hint}{choices}")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def located_weights(weights: str | Path) -> Path:
    """The path of a weights file.

    Args:
        weights: a path, or "package:NAME/PATH" for a file that the installed Python package NAME brings; nothing of
            the package is run.

    Raises:
        InputError: there is no such package, no such file, or one outside the package.
    """
    text = str(weights)
    if not text.startswith(PACKAGE):
        path = Path(weights)
    else:
        name, _, inside = text.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"no weights file {text!r}: no package {name!r} is installed; write package:NAME/PATH")
        if inside.startswith("/") or ".." in inside.split("/"):
            raise InputError(f"no weights file {text!r}: it would lie outside the package; write package:NAME/PATH")
        path = Path(next(iter(spec.submodule_search_locations))) / inside
    if not is_file(path):
        raise InputError(f"no weights file {text!r}")
    return path


# -- which of its layers ------------------------------------------------------------------------------------------

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
"""The kinds of layer selection. A kind is one entry here, with its name in SelectionName; nothing else knows the kinds
apart."""


# -- the model ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelConfig:
    """A matcher: which frozen backbone, which of its layers, how they are compared.

    Attributes:
        backbone: efficientnet_lite0, resnet50 or resnet101; or timm:NAME or torchvision:NAME, any CNN of these
            libraries, whose layers are its stem's and each block's output.
        weights: file with the backbone's weights (the network's own state dict, torch or safetensors), or
            package:NAME/PATH for one that an installed Python package brings; None takes the published ImageNet
            weights, which for efficientnet_lite0 are installed.
        selection: a name in LAYER_SELECTIONS: "dynamic" learns gates and projections (DHPF); "fixed" uses `layers` for
            every pair, as they are (Hyperpixel Flow) or with residual projections; "all" and "last" are baselines
            without learning.
        layers: for "fixed" only: layer numbers, or a name in PUBLISHED_LAYERS[backbone].
        projection: "learned" is the paper's transform of each layer, of a dynamic selection alone; "residual" adds a
            learned linear mix of a layer's channels to the backbone's own map, and begins with that map, of a dynamic
            or a fixed selection; "none" takes the backbone's own maps, as all other selections do.
        exponent: power of the rectified cosine; None takes the one that suits selection and projection, 2 or 3.
        projection_divisor: a dynamic layer of D channels is projected to D / projection_divisor (the paper: 8).
        image_side: side in pixels of the square image that the backbone sees (the paper: 240).
        hough_bins: "current" has 91 bins per axis, "legacy" the 97 of the published weights.
        features: what is compared: projected maps as they are ("plain"), or the square root of their magnitudes, with
            their signs, so that a few strong channels do not decide alone. This and the next two are "plain" or "cell"
            in the published method.
        votes: whether each match votes with its appearance alone ("plain"), or times how much of the foreground is in
            its source and its target cell (`foreground_weights`).
        readout: a source cell's match is the centre of its best target cell ("cell"), or the weighted mean of the cells
            around it (dhpf.model.readout); a point that is matched jointly moves with the cells that cover it ("cell"),
            or with all near it, those most that paths agree on ("soft").
        joint_side: cells per side of the grid on which joint matching follows paths: 60, or 30, which takes a
            sixteenth of the work.
    """

    backbone: str = "efficientnet_lite0"
    weights: str | None = None
    selection: SelectionName = "dynamic"
    layers: tuple[int, ...] | str = ()
    projection: ProjectionName = "learned"
    exponent: int | None = None
    projection_divisor: int = 8
    image_side: int = FRAME_SIDE
    hough_bins: HoughBinsName = "current"
    features: FeaturesName = "plain"
    votes: VotesName = "plain"
    readout: ReadoutName = "cell"
    joint_side: JointSide = 60

    def __post_init__(self) -> None:
        require_backbone(self.backbone)
        require_choice("model.selection", self.selection, LAYER_SELECTIONS)
        require_choice("model.projection", self.projection, get_args(ProjectionName))
        require_choice("model.hough_bins", self.hough_bins, HOUGH_BINS)
        require_choice("model.features", self.features, get_args(FeaturesName))
        require_choice("model.votes", self.votes, get_args(VotesName))
        require_choice("model.readout", self.readout, get_args(ReadoutName))
        if self.joint_side not in get_args(JointSide):
            raise InputError(f"model.joint_side: {self.joint_side} is neither 60 nor 30")
        if self.layer_selection.takes_layers != bool(self.layers):
            takers = " or ".join(repr(name) for name, kind in LAYER_SELECTIONS.items() if kind.takes_layers)
            raise InputError(
                f"model.layers: selection {self.selection!r} with layers {self.layers!r}; "
                f"give layers with selection {takers}, and only with it"
            )
        if isinstance(self.layers, str):
            require_choice(f"model.layers of {self.backbone}", self.layers, PUBLISHED_LAYERS.get(self.backbone, {}))
        if self.exponent is not None and not 1 <= self.exponent <= 10:
            raise InputError(f"model.exponent: {self.exponent} is outside 1 to 10")
        if self.projection_divisor < 1:
            raise InputError(f"model.projection_divisor: {self.projection_divisor} must be at least 1")
        if not 64 <= self.image_side <= 1024:
            raise InputError(f"model.image_side: {self.image_side} is outside 64 to 1024 pixels")

    def settings(self) -> dict[str, Any]:
        """The fields as plain values, for checkpoints and plans.

        Those of _ADDED that are as published are left out, so that models made before they were there are the same.
        """
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if name not in _ADDED or value != _ADDED[name]}

    @property
    def layer_selection(self) -> LayerSelection:
        """The kind of layer selection."""
        return LAYER_SELECTIONS[self.selection]

    @property
    def used_projection(self) -> ProjectionName:
        """The projection, or "none" where the selection cannot have it."""
        return self.projection if self.projection in self.layer_selection.exponents else "none"

    @property
    def appearance_exponent(self) -> int:
        """The power of the rectified cosine, the selection's own unless one is given."""
        return self.layer_selection.exponents[self.used_projection] if self.exponent is None else self.exponent

    @property
    def has_gates(self) -> bool:
        """Whether gates are learned that choose layers for each pair."""
        return self.layer_selection.gates == "learned"

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn: gates, or projections."""
        return self.has_gates or self.used_projection != "none"

    @property
    def fixed_layers(self) -> tuple[int, ...]:
        """The layer numbers that `layers` gives, with a published name resolved; ascending."""
        layers = PUBLISHED_LAYERS[self.backbone][self.layers] if isinstance(self.layers, str) else self.layers
        return tuple(sorted(set(layers)))

    def kept_layers(self, num_layers: int) -> tuple[int, ...]:
        """The layers that the model keeps of a backbone with so many, ascending.

        Raises:
            InputError: a layer that the backbone does not have.
        """
        kept = self.layer_selection.keep(num_layers, self.fixed_layers)
        for layer in kept:
            if not 0 <= layer < num_layers:
                raise InputError(f"model.layers: {self.backbone} has layers 0 to {num_layers - 1}, not {layer}")
        return kept


_ADDED: Mapping[str, object] = MappingProxyType(
    {"features": "plain", "votes": "plain", "readout": "cell", "joint_side": GRID_SIDE}
)
"""Fields that the first version did not have, and what they are in the published method."""

# -- its training -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SupervisionConfig:
    """What training minimises (docs/algorithm.md, section 8; "contrastive" is ours).

    Attributes:
        kind: "strong" uses keypoints, "weak" only the knowledge that two images show the same category. "contrastive"
            makes likeness alone, without votes, point at the truth: at a pair's keypoints, and where a pair has none,
            at the matches that the backbone's own maps and all votes agree on; so it can do without keypoints, too.
        selection_rate: the share of pairs, mu, that each layer's gate should be open for.
        selection_weight: of the term that says so; the paper's is 1.
        alpha: a keypoint transferred within alpha * threshold counts as right and weighs less (strong only).
    """

    kind: SupervisionName = "strong"
    selection_rate: float = 0.5
    selection_weight: float = 1.0
    alpha: float = 0.1

    def __post_init__(self) -> None:
        require_choice("supervision.kind", self.kind, get_args(SupervisionName))
        if not 0 < self.selection_rate <= 1:
            raise InputError(f"supervision.selection_rate: {self.selection_rate} is outside (0, 1]")
        if not 0 <= self.selection_weight <= 100:
            raise InputError(f"supervision.selection_weight: {self.selection_weight} is outside 0 to 100")
        if not 0 < self.alpha <= 1:
            raise InputError(f"supervision.alpha: {self.alpha} is outside (0, 1]")
