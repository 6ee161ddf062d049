"""Which pairs of a collection's images are wanted. A choice is a frozen dataclass: its fields are its options.

To add one, write its class here and name it in PAIR_SELECTS: the command line, workflows.yaml, the planner and the
image folder take it from there. All but a user's list (PairList) give their pairs in closed form, so that any number of
them is counted at once and never listed.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, get_type_hints

from dhpf.config import nearest_name, require_choice
from dhpf.errors import InputError
from dhpf.planning.spans import Span, band, triangle

MAX_NAMES_COMPARED = 10_000
"""An unknown reference is compared with the ids of a collection up to this size."""


@dataclass(frozen=True)
class ChosenPairs:
    """Pairs of a collection in closed form.

    Attributes:
        images: ids in the order whose positions the spans speak of.
        spans: the pairs, each in exactly one span.
    """

    images: tuple[str, ...]
    spans: tuple[Span, ...]

    @property
    def num_pairs(self) -> int:
        return sum(span.num_pairs for span in self.spans)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Source and target of every pair, span by span."""
        for span in self.spans:
            for source, target in span:
                yield self.images[source], self.images[target]


class ClosedSelect(Protocol):
    """A choice of pairs that needs no list of them.

    Attributes:
        name: what `select` calls it; a field and not a constant of the class, so that records of a run hold it.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    def choose(self, images: tuple[str, ...]) -> ChosenPairs:
        """The pairs of a collection; `choose_pairs` checks the ids first.

        Args:
            images: ids, which are paths below the collection's folder with forward slashes; sorted, each once.

        Raises:
            InputError: an option that does not fit these images.
        """
        ...


def _shown(metavar: str, help_text: str, flag: str = "") -> Mapping[str, str]:
    """What a command line shows of an option; without a flag it is named after the field."""
    return {"metavar": metavar, "help": help_text, "flag": flag}


@dataclass(frozen=True)
class All:
    """All unordered pairs; the image whose id comes first is the source."""

    name: str = field(default="all", init=False)

    def choose(self, images: tuple[str, ...]) -> ChosenPairs:
        return ChosenPairs(images, _there(triangle(0, len(images))))


@dataclass(frozen=True)
class WithinFolders:
    """Each image with the others of the folder that it lies in; the image whose id comes first is the source."""

    name: str = field(default="within-folders", init=False)

    def choose(self, images: tuple[str, ...]) -> ChosenPairs:
        # Sorting by id alone would put x/y/1.jpg amid the images of x.
        folders = {image: PurePosixPath(image).parent.as_posix() for image in images}
        ordered = tuple(sorted(images, key=lambda image: (folders[image], image)))
        spans, begin = [], 0
        for _, members in itertools.groupby(ordered, key=folders.__getitem__):
            end = begin + sum(1 for _ in members)
            spans.append(triangle(begin, end))
            begin = end
        return ChosenPairs(ordered, _there(*spans))


@dataclass(frozen=True)
class Reference:
    """One image as the source, with all others as targets.

    Attributes:
        reference: the image's id.
    """

    name: str = field(default="reference", init=False)
    reference: str = field(metadata=_shown("ID", "this image with all others; its path below the folder"))

    def __post_init__(self) -> None:
        if not isinstance(self.reference, str):
            raise InputError(f"reference: {self.reference!r} must be text, an image's path below the folder")

    def choose(self, images: tuple[str, ...]) -> ChosenPairs:
        centre = self._position(images)
        sides = ((0, centre), (centre + 1, len(images)))
        return ChosenPairs(images, tuple(Span(centre, centre + 1, *side) for side in sides if side[0] < side[1]))

    def _position(self, images: tuple[str, ...]) -> int:
        try:
            return images.index(self.reference)
        except ValueError as error:
            hint = "an id is the image's path below the collection's folder"
            if len(images) <= 20:
                hint = nearest_name(self.reference, images)
            elif len(images) <= MAX_NAMES_COMPARED:
                hint = nearest_name(self.reference, images).partition("choices:")[0].strip() or hint
            there = f"no image {self.reference!r} among the {len(images):,} images"
            raise InputError(f"reference: {there}; {hint}") from error


@dataclass(frozen=True)
class Neighbours:
    """Each image with those that follow it, as in the frames of a film: frame2.jpg comes before frame10.jpg.

    Attributes:
        reach: how many following images an image is paired with.
    """

    name: str = field(default="neighbours", init=False)
    reach: int = field(metadata=_shown("K", "each image with the next K images"))

    def __post_init__(self) -> None:
        if type(self.reach) is not int or self.reach < 1:
            raise InputError(f"reach: {self.reach!r} must be a whole number of at least 1")

    def choose(self, images: tuple[str, ...]) -> ChosenPairs:
        everything = (0, len(images))
        return ChosenPairs(_as_counted(images), _there(band(everything, everything, self.reach)))


_DIGITS = bytes(ord("0") if chr(code).isascii() and chr(code).isdigit() else ord("a") for code in range(256))
"""Has every digit of a text in bytes stand as 0, and everything else as a."""


def _as_counted(images: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted ids in the order of the numbers in them."""
    shapes = (image.encode("utf-8", "surrogateescape").translate(_DIGITS) for image in images)
    first = next(shapes, b"")
    if all(shape == first for shape in shapes):  # numbers of equal width: they are in order, and millions are compared
        return images
    return tuple(sorted(images, key=lambda image: re.sub("[0-9]+", _widened, image)))


def _widened(number: re.Match[str]) -> str:
    """A number with its length before it, so that texts compare as numbers do."""
    digits = number[0].lstrip("0")
    return f"0{len(digits):03d}{digits}"


@dataclass(frozen=True)
class PairList:
    """The pairs that a file lists; dhpf.pairs.pair_list reads it.

    Attributes:
        pair_list: path of a CSV or Parquet file with the columns source and target, which hold ids.
    """

    name: str = field(default="list", init=False)
    pair_list: str = field(
        metadata=_shown("FILE", "the pairs of a CSV or Parquet file, columns source and target", "--list")
    )

    def __post_init__(self) -> None:
        if not isinstance(self.pair_list, str):
            raise InputError(f"pair_list: {self.pair_list!r} must be text, the path of a CSV or Parquet file")


PairSelect = ClosedSelect | PairList

PAIR_SELECTS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "all": All,
        "within-folders": WithinFolders,
        "reference": Reference,
        "neighbours": Neighbours,
        "list": PairList,
    }
)


@dataclass(frozen=True)
class SelectOption:
    """An option of one or several of the PAIR_SELECTS, as a command line or a schema declares it.

    Attributes:
        name: the field, and the key in workflows.yaml.
        type: of its values.
        owners: names of the choices that it belongs to.
        metavar, help, flag: for the command line.
    """

    name: str
    type: type
    owners: tuple[str, ...]
    metavar: str
    help: str
    flag: str


def _options() -> dict[str, SelectOption]:
    found: dict[str, SelectOption] = {}
    for name, kind in PAIR_SELECTS.items():
        types = get_type_hints(kind)
        for option in (f for f in dataclasses.fields(kind) if f.init):
            owners = (*found[option.name].owners, name) if option.name in found else (name,)
            flag = option.metadata["flag"] or "--" + option.name.replace("_", "-")
            metavar, help_text = option.metadata["metavar"], option.metadata["help"]
            found[option.name] = SelectOption(option.name, types[option.name], owners, metavar, help_text, flag)
    return found


SELECT_OPTIONS: Mapping[str, SelectOption] = MappingProxyType(_options())
"""Every option of the PAIR_SELECTS, by name."""


def pair_select(name: str, options: Mapping[str, object]) -> PairSelect:
    """The choice of pairs of this name.

    Args:
        options: values of some of the SELECT_OPTIONS by name; None for one that is not given.

    Raises:
        InputError: an unknown name, an option that is missing or belongs to another choice, or an unusable value.
    """
    require_choice("select", str(name), PAIR_SELECTS)
    for option in SELECT_OPTIONS.values():
        value = options.get(option.name)
        if value is None and name in option.owners:
            raise InputError(f"{option.name}: is missing; select {name!r} needs it")
        if value is not None and name not in option.owners:
            owners = " or ".join(map(repr, option.owners))
            raise InputError(
                f"{option.name}: {value!r} with select {name!r}; give it with select {owners}, and only with it"
            )
    chosen: PairSelect = PAIR_SELECTS[name](**{key: value for key, value in options.items() if value is not None})
    return chosen


def gather_select(values: Mapping[str, Any], default: PairSelect) -> dict[str, Any]:
    """The same values, with one PairSelect in place of `select` and the options that stand beside it.

    Args:
        default: its name counts where `values` has no `select`.

    Raises:
        InputError: as `pair_select`.
    """
    options = {name: values[name] for name in SELECT_OPTIONS if name in values}
    others = {name: value for name, value in values.items() if name not in SELECT_OPTIONS}
    return others | {"select": pair_select(values.get("select", default.name), options)}


def choose_pairs(select: ClosedSelect, images: Sequence[str]) -> ChosenPairs:
    """The pairs of a collection with these ids.

    Raises:
        InputError: the ids are not sorted or not different, or an option of `select` does not fit them.
    """
    if any(a >= b for a, b in itertools.pairwise(images)):
        raise InputError("images: the ids of a collection must be sorted, and each must be there once")
    return select.choose(tuple(images))


def _there(*spans: Span | None) -> tuple[Span, ...]:
    return tuple(span for span in spans if span)
