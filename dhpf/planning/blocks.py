"""Cuts pairs into blocks. A block is some pairs and their images, each once; it is read, matched and committed whole.

Pairs that come one by one are cut by `plan_blocks`, pairs in closed form (dhpf.planning.spans) by `plan_spans`, and a
list of any length by dhpf.planning.listed_blocks.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.planning.span_arrays import pair_positions
from dhpf.planning.spans import Range, Span, band, merged, num_positions, span_from_json
from dhpf.records import PairRecord


@dataclass(frozen=True)
class Block:
    """Some pairs and their images.

    Attributes:
        block_id: such as "block-000012"; unique in its set.
        images: ids of all images of the pairs, each once, in the order of first use.
        pairs: in the order of their source.
    """

    block_id: str
    images: tuple[str, ...]
    pairs: tuple[PairRecord, ...]


def plan_blocks(pairs: Iterable[PairRecord], *, max_pairs: int, max_images: int) -> Iterator[Block]:
    """Cuts a stream of pairs into blocks, in order; a block closes when the next pair would exceed a limit.

    The same pairs and limits give the same blocks; memory holds one block at a time.

    Raises:
        InputError: a limit that no pair can keep.
    """
    require_limits(max_images, max_pairs)
    number = 0
    current: list[PairRecord] = []
    images: dict[str, None] = {}
    for pair in pairs:
        grown = images | {pair.source: None, pair.target: None}
        if current and (len(current) == max_pairs or len(grown) > max_images):
            yield Block(block_name(number), tuple(images), tuple(current))
            number, current, grown = number + 1, [], {pair.source: None, pair.target: None}
        current.append(pair)
        images = grown
    if current:
        yield Block(block_name(number), tuple(images), tuple(current))


@dataclass(frozen=True)
class PlannedBlock:
    """A block before anything is read: plain numbers that travel to workers and into a PLAN.json.

    Attributes:
        index: its place in the plan, from 0.
        first_pair: how many pairs the blocks before it hold; its own are numbered from there on.
        num_pairs, num_images: how many it holds.
        num_shared: how many of its images are in the block before it, too; a worker that still holds these need not
            read them again.
        spans: its pairs; empty where they lie in a file, whose record batch `index` holds them.
    """

    index: int
    first_pair: int
    num_pairs: int
    num_images: int
    num_shared: int
    spans: tuple[Span, ...] = ()

    @property
    def block_id(self) -> str:
        return block_name(self.index)

    def positions(self) -> NDArray[np.int32]:
        """(num_pairs, 2) source and target of each pair, in the order of their numbers; only with spans."""
        assert self.spans, f"{self.block_id} has its pairs in a file"
        return np.concatenate([pair_positions(span) for span in self.spans])

    def to_json(self) -> dict[str, Any]:
        """As `planned_block_from_json` takes it."""
        return {name: getattr(self, name) for name in _COUNTS} | {"spans": [span.to_json() for span in self.spans]}


_COUNTS = ("index", "first_pair", "num_pairs", "num_images", "num_shared")


def planned_block_from_json(value: Any) -> PlannedBlock:
    """The inverse of `PlannedBlock.to_json`, for values that are not trusted.

    Raises:
        InputError: not a planned block, or counts that contradict its spans.
    """
    if not isinstance(value, dict) or set(value) != {*_COUNTS, "spans"} or not isinstance(value["spans"], list):
        raise InputError(f"planned block {str(value)[:80]}: must have exactly {', '.join(_COUNTS)} and a list of spans")
    counts = {name: value[name] for name in _COUNTS}
    if any(type(count) is not int or count < 0 for count in counts.values()):
        raise InputError(f"planned block {str(value)[:80]}: counts must be whole numbers, none below 0")
    block = PlannedBlock(**counts, spans=tuple(map(span_from_json, value["spans"])))
    if block.spans:
        content = _Content(list(block.spans))
        if (block.num_pairs, block.num_images) != (content.num_pairs, content.num_images):
            raise InputError(f"planned {block.block_id}: its spans hold other numbers of pairs and images than it says")
    if block.num_pairs < 1 or block.num_images < 2 or block.num_shared > block.num_images:
        raise InputError(f"planned {block.block_id}: its numbers of pairs and images cannot be true")
    return block


def plan_spans(spans: Iterable[Span], *, max_images: int, max_pairs: int) -> Iterator[PlannedBlock]:
    """Cuts pairs in closed form into blocks; every pair is in exactly one.

    A span that is too large is cut into tiles, each of which pairs two groups of images; a tile has a group in common
    with the one before it. Small spans that follow each other share a block. Memory does not grow with the pairs.

    Two groups of g = max_images // 2 images have g * g pairs, so that about 4 / max_images images are described per
    pair. That is twice the least possible (`fewest_images` in dhpf.planning.plan_summary), and about the least where a
    worker keeps the images of its last block.

    Raises:
        InputError: a limit that no pair can keep.
    """
    require_limits(max_images, max_pairs)
    index = first_pair = 0
    current = _Content([])
    last_ranges: list[Range] = []

    def close() -> PlannedBlock:
        shared = current.num_images + num_positions(last_ranges) - num_positions(merged(current.ranges + last_ranges))
        return PlannedBlock(index, first_pair, current.num_pairs, current.num_images, shared, tuple(current.spans))

    for piece in (piece for span in spans for piece in _cut(span, max_images, max_pairs)):
        grown = current.with_span(piece)
        if current.spans and (grown.num_pairs > max_pairs or grown.num_images > max_images):
            yield close()
            index, first_pair, last_ranges = index + 1, first_pair + current.num_pairs, current.ranges
            grown = _Content([piece])
        current = grown
    if current.spans:
        yield close()


def images_within(budget_bytes: int, bytes_per_image: int) -> int:
    """How many images a block may have if what is kept of them must fit into `budget_bytes` of memory.

    Raises:
        InputError: not even the two images of one pair fit.
    """
    if bytes_per_image < 1:
        raise InputError(f"bytes_per_image: {bytes_per_image} must be at least 1")
    if budget_bytes < 2 * bytes_per_image:
        raise InputError(
            f"memory for features: {budget_bytes} bytes are less than two images take, {2 * bytes_per_image}; give more"
        )
    return budget_bytes // bytes_per_image


def require_limits(max_images: int, max_pairs: int) -> None:
    """Raises InputError for a limit that no pair can keep."""
    for name, limit, least in (("max_pairs", max_pairs, 1), ("max_images", max_images, 2)):
        if limit < least:
            raise InputError(f"{name}: {limit} must be at least {least}")


def block_name(index: int) -> str:
    """The id of a set's block, such as "block-000012"."""
    return f"block-{index:06d}"


class _Content:
    """Some spans, with how many images and pairs they hold; few numbers, however many images these are."""

    def __init__(self, spans: list[Span], ranges: list[Range] | None = None, num_pairs: int | None = None) -> None:
        self.spans = spans
        self.ranges = merged(r for span in spans for r in span.ranges) if ranges is None else ranges
        self.num_pairs = sum(span.num_pairs for span in spans) if num_pairs is None else num_pairs

    @cached_property
    def num_images(self) -> int:
        return num_positions(self.ranges)

    def with_span(self, span: Span) -> _Content:
        return _Content([*self.spans, span], merged([*self.ranges, *span.ranges]), self.num_pairs + span.num_pairs)


def _cut(span: Span, max_images: int, max_pairs: int) -> Iterator[Span]:
    """Cuts a span into pieces that keep the limits; pieces that follow each other share images."""
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
