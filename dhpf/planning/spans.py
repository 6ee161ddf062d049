"""Sets of pairs in closed form, which are counted and cut without being listed.

An image is a position in its collection's list of ids. A span pairs a range of sources with a range of targets.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

from dhpf.errors import InputError

Range = tuple[int, int]
"""Positions from the first number up to, not including, the second."""


@dataclass(frozen=True)
class Span:
    """The pairs (i, j) with i in [source_begin, source_end), j in [target_begin, target_end), and 0 < j - i <= reach.

    With reach 0 every source is paired with every target: a rectangle. Every position of both ranges is in a pair,
    so that a span reads exactly the images it names; `triangle` and `band` make such spans.

    Raises:
        InputError: numbers that are no such span; they may come from a file.
    """

    source_begin: int
    source_end: int
    target_begin: int
    target_end: int
    reach: int = 0

    def __post_init__(self) -> None:
        numbers = astuple(self)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise InputError(f"span {numbers}: must be whole numbers, none below 0")
        if self.source_begin >= self.source_end or self.target_begin >= self.target_end:
            raise InputError(f"span {numbers}: holds no pair")
        if self.reach and _trimmed(*numbers) != numbers[:4]:
            raise InputError(f"span {numbers}: names an image that is in none of its pairs")
        if not self.reach and self.source_begin < self.target_end and self.target_begin < self.source_end:
            raise InputError(f"span {numbers}: pairs an image with itself")

    @property
    def num_pairs(self) -> int:
        sources, targets = self.source_end - self.source_begin, self.target_end - self.target_begin
        if not self.reach:
            return sources * targets
        return self._num_up_to(self.reach) - self._num_up_to(0)

    @property
    def num_images(self) -> int:
        return num_positions(merged(self.ranges))

    @property
    def ranges(self) -> tuple[Range, Range]:
        """The sources' range and the targets'; they may overlap."""
        return (self.source_begin, self.source_end), (self.target_begin, self.target_end)

    def targets_of(self, source: int) -> Range:
        """The targets of one of the sources, never empty."""
        if not self.reach:
            return self.target_begin, self.target_end
        return max(self.target_begin, source + 1), min(self.target_end, source + self.reach + 1)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The pairs (i, j), ascending."""
        for source in range(self.source_begin, self.source_end):
            for target in range(*self.targets_of(source)):
                yield source, target

    def to_json(self) -> list[int]:
        """Five numbers, as `span_from_json` takes them."""
        return list(astuple(self))

    def _num_up_to(self, step: int) -> int:
        """How many pairs of the two ranges have j - i <= step: a sum of clipped lengths, which is a polynomial."""
        width = self.target_end - self.target_begin

        def clipped_sum(end: int) -> int:
            """Sum over all i < end of min(max(i + step + 1 - target_begin, 0), width)."""
            last = end + step - self.target_begin
            return _triangular(last) - _triangular(last - width)

        return clipped_sum(self.source_end) - clipped_sum(self.source_begin)


def triangle(begin: int, end: int) -> Span | None:
    """Every unordered pair of the positions [begin, end), the smaller one as source; None of fewer than two."""
    return band((begin, end), (begin, end), end - begin)


def band(sources: Range, targets: Range, reach: int) -> Span | None:
    """The pairs of two ranges with 0 < j - i <= reach, without positions that are in none; None if there is none."""
    begin, end, target_begin, target_end = _trimmed(*sources, *targets, reach)
    if reach < 1 or begin >= end or target_begin >= target_end:
        return None
    # A reach beyond the farthest pair changes nothing; it is cut off, so that equal pairs give equal spans.
    farthest = target_end - 1 - begin
    is_rectangle = end <= target_begin and reach >= farthest
    return Span(begin, end, target_begin, target_end, 0 if is_rectangle else min(reach, farthest))


def span_from_json(value: Any) -> Span:
    """The inverse of `Span.to_json`, for values that are not trusted.

    Raises:
        InputError: not a span.
    """
    if not isinstance(value, list) or len(value) != 5:
        raise InputError(f"span {str(value)[:80]}: must be a list of 5 whole numbers")
    return Span(*value)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same positions as ascending ranges that neither overlap nor touch."""
    union: list[Range] = []
    for begin, end in sorted(ranges):
        if union and begin <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((begin, end))
    return union


def num_positions(ranges: Iterable[Range]) -> int:
    """How many positions ranges that do not overlap hold."""
    return sum(end - begin for begin, end in ranges)


def pieces(span: Span, max_images: int, max_pairs: int) -> Iterator[Span]:
    """Cuts a span into pieces that keep the limits of a block; pieces that follow each other share images."""
    if span.num_images <= max_images and span.num_pairs <= max_pairs:
        return iter((span,))
    if not span.reach:
        return _cut_rectangle(span, max_images, max_pairs)
    if 2 * span.reach <= max_images and span.reach**2 <= max_pairs:
        return _cut_to_strips(span, min(max_images - span.reach, max_pairs // span.reach))
    return _cut_to_tiles(span, max(1, min(max_images // 2, math.isqrt(max_pairs))))


def _cut_rectangle(span: Span, max_images: int, max_pairs: int) -> Iterator[Span]:
    sources, targets = span.ranges
    num_sources, num_targets = sources[1] - sources[0], targets[1] - targets[0]
    # Square tiles read the fewest images. Where a side of the span is short, the other side of a tile may be longer.
    shorter = min(num_sources, num_targets, max_images // 2, max(1, math.isqrt(max_pairs)))
    longer = min(max_images - shorter, max_pairs // shorter) if shorter in (num_sources, num_targets) else shorter
    height, width = (shorter, longer) if num_sources <= num_targets else (longer, shorter)
    columns = list(_chunks(targets, width))
    for row, source in enumerate(_chunks(sources, height)):
        for target in columns if row % 2 == 0 else reversed(columns):
            yield Span(*source, *target)


def _cut_to_strips(span: Span, height: int) -> Iterator[Span]:
    """For a short reach: sources in a row with all their targets, most of which are among these sources."""
    sources, targets = span.ranges
    for strip in _chunks(sources, height):
        piece = band(strip, targets, span.reach)
        if piece:
            yield piece


def _cut_to_tiles(span: Span, size: int) -> Iterator[Span]:
    """Tiles of two groups, row by row, every other row backwards.

    The pairs within a group come beside a tile that needs the group anyway.
    """
    sources, targets = span.ranges
    begin, end = min(sources[0], targets[0]), max(sources[1], targets[1])
    num_groups = -(-(end - begin) // size)
    edges = [begin + (end - begin) * number // num_groups for number in range(num_groups + 1)]

    def tile(row: int, column: int) -> Iterator[Span]:
        source = max(edges[row], sources[0]), min(edges[row + 1], sources[1])
        target = max(edges[column], targets[0]), min(edges[column + 1], targets[1])
        piece = band(source, target, span.reach)
        if piece:
            yield piece

    for row in range(num_groups):
        farthest = min(edges[row + 1] - 1 + span.reach, end - 1)
        columns = range(row + 1, min(bisect_right(edges, farthest), num_groups))
        for column in columns if row % 2 == 0 else reversed(columns):
            if row % 2 == 0 and column == row + 1:
                yield from tile(row, row)
            yield from tile(row, column)
            if row % 2 == 0 and column == row + 1:
                yield from tile(column, column)
    if num_groups % 2:
        yield from tile(num_groups - 1, num_groups - 1)


def _chunks(positions: Range, size: int) -> Iterator[Range]:
    """Ranges of nearly equal length, none longer than size."""
    begin, end = positions
    count = -(-(end - begin) // size)
    for number in range(count):
        yield begin + (end - begin) * number // count, begin + (end - begin) * (number + 1) // count


def _trimmed(begin: int, end: int, target_begin: int, target_end: int, reach: int) -> tuple[int, int, int, int]:
    begin, end = max(begin, target_begin - reach), min(end, target_end - 1)
    return begin, end, max(target_begin, begin + 1), min(target_end, end + reach)


def _triangular(number: int) -> int:
    return number * (number + 1) // 2 if number > 0 else 0
