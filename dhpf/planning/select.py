"""Which pairs of a collection: in closed form, so that any number of them is counted at once and never listed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dhpf.config import nearest_name, require_choice
from dhpf.errors import InputError
from dhpf.planning.span_arrays import num_degrees
from dhpf.planning.spans import Span, band, triangle

CLOSED_SELECTIONS = ("all", "within-folders", "reference", "neighbours")
"""What `select` knows; a pair list, which is not in closed form, is read by dhpf.pairs.pair_list."""

SELECTIONS = (*CLOSED_SELECTIONS, "list")

_OPTION_OF = {"reference": "reference", "reach": "neighbours", "pair_list": "list"}
"""The selection that each option belongs to."""

MAX_NAMES_COMPARED = 10_000
"""An unknown reference is compared with the ids of a collection up to this size."""


@dataclass(frozen=True)
class Selection:
    """Pairs of a collection.

    Attributes:
        images: ids in the order whose positions the spans speak of: sorted, for "within-folders" by folder first.
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

    def degrees(self) -> NDArray[np.int64]:
        """(num_images,) how many pairs each image is in."""
        return num_degrees(self.spans, len(self.images))


def select(images: Sequence[str], how: str, *, reference: str | None = None, reach: int | None = None) -> Selection:
    """The pairs of a collection.

    Args:
        images: ids, paths below the collection's folder with forward slashes, sorted.
        how: "all" unordered pairs, the earlier image as source; those "within-folders", of images that lie in the
            same folder; one image, the "reference", as source with all others; or each image with its next
            "neighbours".
        reference: id of that image, only for "reference".
        reach: how many neighbours, only for "neighbours".

    Raises:
        InputError: an unknown selection, or a reference or reach that is missing, out of place or unusable.
    """
    require_choice("selection", how, CLOSED_SELECTIONS)
    require_options(how, reference=reference, reach=reach)
    if any(a >= b for a, b in itertools.pairwise(images)):
        raise InputError("images: the ids of a collection must be sorted, and each must be there once")
    ids = tuple(images)
    if how == "within-folders":
        return _within_folders(ids)
    if how == "reference":
        return Selection(ids, _star(_position(ids, str(reference)), len(ids)))
    if reach is not None and reach < 1:
        raise InputError(f"reach: {reach} must be at least 1")
    return Selection(ids, _there(band((0, len(ids)), (0, len(ids)), reach or len(ids))))


def require_options(how: str, **options: object) -> None:
    """Raises InputError unless exactly the options that belong to a selection are given.

    Args:
        options: reference, reach and pair_list, as far as they can be given; None for those that are not.
    """
    for name, value in options.items():
        owner = _OPTION_OF[name]
        if (value is not None) != (how == owner):
            raise InputError(
                f"{name}: {value!r} with selection {how!r}; give it with selection {owner!r}, and only with it"
            )


def _within_folders(images: tuple[str, ...]) -> Selection:
    """Sorting by id alone would put x/y/1.jpg amid the images of x."""
    folders = {image: PurePosixPath(image).parent.as_posix() for image in images}
    ordered = tuple(sorted(images, key=lambda image: (folders[image], image)))
    spans, begin = [], 0
    for _, members in itertools.groupby(ordered, key=folders.__getitem__):
        end = begin + sum(1 for _ in members)
        spans.append(triangle(begin, end))
        begin = end
    return Selection(ordered, _there(*spans))


def _star(centre: int, num_images: int) -> tuple[Span, ...]:
    sides = ((0, centre), (centre + 1, num_images))
    return tuple(Span(centre, centre + 1, begin, end) for begin, end in sides if begin < end)


def _position(images: tuple[str, ...], reference: str) -> int:
    try:
        return images.index(reference)
    except ValueError as error:
        hint = "an id is the image's path below the collection's folder"
        if len(images) <= 20:
            hint = nearest_name(reference, images)
        elif len(images) <= MAX_NAMES_COMPARED:
            hint = nearest_name(reference, images).partition("choices:")[0].strip() or hint
        raise InputError(f"reference: no image {reference!r} among the {len(images):,} images; {hint}") from error


def _there(*spans: Span | None) -> tuple[Span, ...]:
    return tuple(span for span in spans if span)
