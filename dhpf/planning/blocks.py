"""Cuts pairs into blocks. A block is some pairs and their images, each once; it is read, matched and committed whole.

Pairs that come one by one are cut by `plan_blocks`, pairs in closed form (dhpf.planning.spans) by `plan_spans`, and a
list of any length by dhpf.planning.listed_blocks. Where nobody says how large blocks may be, they are so small that
several workers share a collection, and so large that few images are described twice.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.planning.spans import Range, Span, merged, num_positions, pieces, span_from_json
from dhpf.records import PairRecord
from dhpf.storage import FileLocation, Location
from dhpf.storage.readable import ReadableLocation

LARGEST_BLOCK = 500
"""Pairs of a block of a large collection: what is lost at most when a worker dies."""

SMALLEST_BLOCK = 24
"""A collection is not cut into smaller blocks than this many pairs: they would describe the same images again."""

WANTED_BLOCKS = 6
"""Blocks that a collection is cut into if it has pairs enough, so that several workers have several blocks each."""

LISTED_PAIRS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("source", pa.int32(), nullable=False),
        pa.field("target", pa.int32(), nullable=False),
    ]
)
"""A pair's number, and its images as positions in the collection; further columns (`category`, `points`) as given."""


@dataclass(frozen=True)
class BlockLimits:
    """How many images and how many pairs a block may hold."""

    max_images: int
    max_pairs: int


def block_limits(num_pairs: int | None, *, max_images: int | None = None, max_pairs: int | None = None) -> BlockLimits:
    """The limits that the blocks of a collection are planned with; whoever plans it the same way gets the same blocks.

    Args:
        num_pairs: of the collection; None where they are not counted yet, which is taken as a large collection.
        max_images: what memory allows; None: all images that the pairs of a block can have.
        max_pairs: None: what suits `num_pairs`.
    """
    if max_pairs is None:
        max_pairs = LARGEST_BLOCK if num_pairs is None else pairs_of_a_block(num_pairs)
    return BlockLimits(2 * max_pairs if max_images is None else max_images, max_pairs)


def pairs_of_a_block(num_pairs: int) -> int:
    """How many pairs a block of a collection with so many pairs may hold.

    It depends on nothing else, so that a plan made again is the same.
    """
    return min(LARGEST_BLOCK, max(SMALLEST_BLOCK, -(-num_pairs // WANTED_BLOCKS)))


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


def pairs_of(block: PlannedBlock, place: Location | None) -> pa.RecordBatch:
    """A block's pairs, with the columns number, source, target and, of a list that has them, category and points.

    Numbers count from 0: through the blocks of the plan, or through the rows of the list. Source and target are
    positions among the images.

    Args:
        place: file with the pairs of a list; None for a block whose pairs a rule chose.
    """
    if place is not None:
        return read_block(place, block)
    positions = block.positions()
    numbers = range(block.first_pair, block.first_pair + block.num_pairs)
    return pa.record_batch({"number": pa.array(numbers), "source": positions[:, 0], "target": positions[:, 1]})


def pair_positions(span: Span) -> NDArray[np.int32]:
    """(num_pairs, 2) the pairs (i, j) of a span, ascending."""
    sources = np.arange(span.source_begin, span.source_end, dtype=np.int32)
    bounds = np.array([span.targets_of(int(source)) for source in sources])
    counts = bounds[:, 1] - bounds[:, 0]
    starts = np.cumsum(counts) - counts
    targets = np.arange(counts.sum()) + np.repeat(bounds[:, 0] - starts, counts)
    return np.stack((np.repeat(sources, counts), targets.astype(np.int32)), axis=1)


def read_block(place: Location, block: PlannedBlock) -> pa.RecordBatch:
    """The pairs of one block of a list, read where they lie; no more of an object is fetched.

    Raises:
        InputError: the file is not the one that the block was planned in.
    """
    try:
        reader = _opened_file(place) if isinstance(place, FileLocation) else _opened_object(place)
        if block.index >= reader.num_record_batches or reader.schema.names[:3] != LISTED_PAIRS.names:
            raise _not_as_planned(place, block)
        found = reader.get_batch_with_custom_metadata(block.index)
        found.batch.validate(full=True)
        sealed = found.custom_metadata == seal_of(found.batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"planned pairs {place}: not readable ({error}); plan the list again") from error
    if found.batch.num_rows != block.num_pairs or not sealed:
        raise _not_as_planned(place, block)
    return found.batch


def _not_as_planned(place: Location, block: PlannedBlock) -> InputError:
    return InputError(f"planned pairs {place}: {block.block_id} is not there as planned; plan the list again")


def seal_of(batch: pa.RecordBatch) -> pa.KeyValueMetadata:
    """What is stored beside a block's pairs, by which `read_block` knows whether they are as they were written."""
    written = pa.ipc.read_record_batch(batch.serialize(), batch.schema)  # a slice is stored without its surroundings
    digest = hashlib.sha256(written.schema.serialize())
    digest.update(written.serialize())
    return pa.KeyValueMetadata({"sha256": digest.hexdigest()})


def _opened_file(place: FileLocation) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(place.path)))


@functools.lru_cache(maxsize=4)
def _opened_object(place: Location) -> pa.ipc.RecordBatchFileReader:
    """Opened once in each process, because the list of blocks at its end is long."""
    return pa.ipc.open_file(pa.PythonFile(ReadableLocation(place), mode="r"))


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

    for piece in (piece for span in spans for piece in pieces(span, max_images, max_pairs)):
        grown = current.with_span(piece)
        if current.spans and (grown.num_pairs > max_pairs or grown.num_images > max_images):
            yield close()
            index, first_pair, last_ranges = index + 1, first_pair + current.num_pairs, current.ranges
            grown = _Content([piece])
        current = grown
    if current.spans:
        yield close()


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
