"""Plans the blocks of a pair list of any length: what grows with the pairs is on disk, and not in memory.

It is done in four steps:

1. It is copied to disk as it comes, while a sample of its pairs is drawn. The sample gives an order of the images in
   which paired images stand close together. The order is cut into groups of max_images // 2 images, and these into
   sub-groups; the pairs of two sub-groups are a tile, which fits into a block.
2. The pairs are counted by tile; where there are very many tiles, by a few of them in a row.
3. The pairs are dealt to files, each of which holds some tiles in a row and is small enough for memory.
4. Each file is sorted by tile, and its tiles fill blocks until a limit is reached.
"""

from __future__ import annotations

import math
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhpf.planning.block_filling import BlockFiller
from dhpf.planning.blocks import LISTED_PAIRS, PlannedBlock, require_limits, seal_of
from dhpf.planning.image_order import PairSample, Positions, order_images
from dhpf.planning.plan_summary import PlanSummary, fewest_images

POINTS = pa.list_(pa.list_(pa.float32(), 2))
"""Points of a pair: a list of [x, y] in the original image's pixels."""

BOX = pa.list_(pa.float32(), 4)
"""A box of an image: x0, y0, x1, y1 in the original image's pixels."""

PAIRS_FILE = "pairs.arrow"

SAMPLE_SIZE = 4_000_000
"""Pairs that the order of the images is made from."""

SORTED_BYTES = 64_000_000
"""About so much of the list is sorted at once."""

MAX_PARTS = 500
"""Files that are open at once; a list of more than SORTED_BYTES times this needs more memory."""

_NUM_BINS = 2**20

Progress = Callable[[str, int], object]
"""Called with what is being done, and for how many pairs it was done since the last call."""

Duplicates = Callable[[NDArray[np.int64], NDArray[np.int64], Positions, Positions], object]
"""Called with pairs that repeat others: their numbers, the numbers of those, sources and targets."""


@dataclass(frozen=True)
class ListedPlan:
    """Blocks whose pairs lie in a file.

    Attributes:
        path: an Arrow file; record batch i holds the pairs of block i (`LISTED_PAIRS`).
        counts: num_pairs, num_images and num_shared (PlannedBlock) of the first block, then of the next, and so on.
        degrees: (num_images,) how many different images each image is paired with.
    """

    path: Path
    counts: array[int]
    degrees: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts) // 3

    def blocks(self) -> Iterator[PlannedBlock]:
        """The blocks, made one at a time: a long list has many."""
        first_pair = 0
        for index in range(len(self)):
            num_pairs, num_images, num_shared = self.counts[3 * index : 3 * index + 3]
            yield PlannedBlock(index, first_pair, num_pairs, num_images, num_shared)
            first_pair += num_pairs

    def summary(self, *, max_images: int, max_pairs: int) -> PlanSummary:
        """As dhpf.planning.plan_summary.summarise, with the limits that the plan was made with."""
        ideal = fewest_images(self.degrees, max_images=max_images, max_pairs=max_pairs)
        num_pairs, num_images, num_shared = (sum(self.counts[kind::3]) for kind in range(3))
        return PlanSummary(len(self), num_pairs, num_images, num_shared, ideal)


def plan_listed(
    batches: Iterable[pa.RecordBatch],
    num_images: int,
    folder: Path,
    *,
    max_images: int,
    max_pairs: int,
    on_duplicates: Duplicates = lambda numbers, firsts, sources, targets: None,
    on_progress: Progress = lambda what, num_pairs: None,
) -> ListedPlan:
    """Plans the blocks of a list and writes its pairs into `folder`, block by block; the same list, the same bytes.

    Args:
        batches: `LISTED_PAIRS`, with or without further columns; read once. Numbers ascend; source and target differ.
        num_images: of the collection.
        folder: for the result, and meanwhile for about twice its size.
        on_duplicates: called for pairs that are left out because the list has them before; (a, b) and (b, a) differ.

    Raises:
        InputError: a limit that no pair can keep.
    """
    require_limits(max_images, max_pairs)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".planning-", dir=folder) as scratch:
        spool = _spool(batches, num_images, Path(scratch) / "spool.arrow", on_progress)
        tiling = _Tiling.of(spool, num_images, max_images, max_pairs)
        parts = _deal(spool, tiling, Path(scratch), on_progress)
        spool.path.unlink()
        written = Path(scratch) / PAIRS_FILE
        plan = _write_blocks(parts, spool.schema, tiling, written, max_images, max_pairs, on_duplicates, on_progress)
        with written.open("rb+") as file:
            os.fsync(file.fileno())
        written.replace(folder / PAIRS_FILE)
    return ListedPlan(folder / PAIRS_FILE, plan.counts, plan.degrees)


@dataclass(frozen=True)
class _Spool:
    """A copy of the list on disk, and what was seen while it was written."""

    path: Path
    schema: pa.Schema
    num_pairs: int
    sample: PairSample
    is_used: NDArray[np.bool_]


def _spool(batches: Iterable[pa.RecordBatch], num_images: int, path: Path, on_progress: Progress) -> _Spool:
    sample = PairSample(SAMPLE_SIZE)
    is_used = np.zeros(num_images, dtype=np.bool_)
    schema, num_pairs = LISTED_PAIRS, 0
    with ExitStack() as stack:
        writer: pa.ipc.RecordBatchStreamWriter | None = None
        for batch in batches:
            if writer is None:
                schema = batch.schema
                writer = stack.enter_context(pa.ipc.new_stream(str(path), schema))
            numbers, sources, targets = _columns(batch)
            sample.add(numbers, sources, targets)
            is_used[sources] = is_used[targets] = True
            num_pairs += len(numbers)
            writer.write_batch(batch)
            on_progress("reading", len(numbers))
        if writer is None:
            stack.enter_context(pa.ipc.new_stream(str(path), schema))
    return _Spool(path, schema, num_pairs, sample, is_used)


@dataclass(frozen=True)
class _Tiling:
    """Where a pair belongs. A square is the pairs of two groups of images.

    A tile is a part of it, the pairs of two sub-groups, and fits into a block.

    Attributes:
        place: (num_images,) each image's place in the order.
        group, sub_group: (num_images,) by place.
        num_groups, num_sub_groups: the latter in each group.
    """

    place: Positions
    group: Positions
    sub_group: Positions
    num_groups: int
    num_sub_groups: int

    @classmethod
    def of(cls, spool: _Spool, num_images: int, max_images: int, max_pairs: int) -> _Tiling:
        order = order_images(num_images, *spool.sample.pairs())
        # An image may be in pairs, but in none of the sample: it goes before those that are in none at all.
        order = order[np.argsort(~spool.is_used[order], kind="stable")]
        place = np.empty(num_images, dtype=np.int32)
        place[order] = np.arange(num_images, dtype=np.int32)
        num_used = max(int(spool.is_used.sum()), 1)
        num_groups = -(-num_used // (max_images // 2))
        places = np.arange(num_used, dtype=np.int64)
        group = places * num_groups // num_used
        within = places - -(-group * num_used // num_groups)
        size = int(within.max()) + 1
        tile_side = min(size, math.isqrt(max_pairs))
        num_sub_groups = -(-size // tile_side)
        sub_group = within * num_sub_groups // size
        assert num_groups**2 * num_sub_groups**2 < 2**63, "ranks must fit into 64 bits"
        return cls(place, group.astype(np.int32), sub_group.astype(np.int32), num_groups, num_sub_groups)

    @property
    def num_ranks(self) -> int:
        return self.num_groups**2 * self.num_sub_groups**2

    def ranks(self, lower: Positions, upper: Positions) -> NDArray[np.int64]:
        """(P,) of each pair's tile: squares in a serpentine over groups, tiles in one over the square's sub-groups."""
        square = _serpentine(self.group[lower], self.group[upper], self.num_groups)
        tile = _serpentine(self.sub_group[lower], self.sub_group[upper], self.num_sub_groups)
        return square * self.num_sub_groups**2 + tile

    def bins(self, sources: Positions, targets: Positions) -> NDArray[np.int64]:
        """A coarse rank below _NUM_BINS: pairs of one tile have one bin."""
        ranks = self.ranks(*self.places(sources, targets))
        return (ranks * (_NUM_BINS / self.num_ranks)).astype(np.int64).clip(max=_NUM_BINS - 1)

    def places(self, sources: Positions, targets: Positions) -> tuple[Positions, Positions]:
        """The places of each pair's images, the lower one first."""
        a, b = self.place[sources], self.place[targets]
        return np.minimum(a, b), np.maximum(a, b)


def _serpentine(rows: Positions, columns: Positions, size: int) -> NDArray[np.int64]:
    """Even rows run forwards, odd ones backwards, so that each square shares a group with the one before."""
    return rows.astype(np.int64) * size + np.where(rows % 2 == 0, columns, size - 1 - columns)


def _deal(spool: _Spool, tiling: _Tiling, scratch: Path, on_progress: Progress) -> list[Path]:
    """Files of consecutive bins, each small enough to be sorted in memory; pairs in them in the order of the list."""
    if not spool.num_pairs:
        return []
    counts = np.zeros(_NUM_BINS, dtype=np.int64)
    for batch in _read_stream(spool.path):
        counts += np.bincount(tiling.bins(*_columns(batch)[1:]), minlength=_NUM_BINS)
        on_progress("counting", batch.num_rows)
    num_wanted = min(MAX_PARTS, -(-spool.path.stat().st_size // SORTED_BYTES))
    at_once = -(-spool.num_pairs // num_wanted)
    is_filled = counts > 0
    starts = (np.cumsum(counts) - counts)[is_filled]
    part_of_bin = np.zeros(_NUM_BINS, dtype=np.int64)
    _, part_of_bin[is_filled] = np.unique(starts // at_once, return_inverse=True)
    num_parts = int(part_of_bin.max()) + 1
    paths = [scratch / f"part-{number:06d}.arrow" for number in range(num_parts)]
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(str(path), spool.schema)) for path in paths]
        for batch in _read_stream(spool.path):
            parts = part_of_bin[tiling.bins(*_columns(batch)[1:])]
            order = np.argsort(parts, kind="stable")
            batch = batch.take(pa.array(order))
            edges = np.searchsorted(parts[order], np.arange(num_parts + 1))
            for writer, begin, end in zip(writers, edges[:-1], edges[1:], strict=True):
                if begin < end:
                    writer.write_batch(batch.slice(begin, end - begin))
            on_progress("dealing", batch.num_rows)
    return paths


def _write_blocks(
    parts: list[Path],
    schema: pa.Schema,
    tiling: _Tiling,
    path: Path,
    max_images: int,
    max_pairs: int,
    on_duplicates: Duplicates,
    on_progress: Progress,
) -> ListedPlan:
    degrees = np.zeros(len(tiling.place), dtype=np.int64)
    counts = array("q")
    filler = BlockFiller(len(tiling.place), max_images, max_pairs)
    waiting = schema.empty_table()  # pairs of the block that is not closed yet
    with pa.ipc.new_file(str(path), schema) as writer:

        def write(ready: pa.Table, sizes: NDArray[np.int64]) -> None:
            begin = 0
            ready = ready.combine_chunks()
            for num_pairs in sizes.tolist():
                batch = ready.slice(begin, num_pairs).to_batches()[0]
                writer.write_batch(batch, custom_metadata=seal_of(batch))
                begin += num_pairs

        for part in parts:
            pairs, ranks, lower, upper = _sorted_part(part, tiling, degrees, on_duplicates)
            closed = filler.fill(ranks, lower, upper)
            counts.extend(closed.ravel().tolist())
            waiting = pa.concat_tables([waiting, pairs])
            num_closed = int(closed[:, 0].sum())
            write(waiting.slice(0, num_closed), closed[:, 0])
            waiting = waiting.slice(num_closed)
            part.unlink()
            on_progress("sorting", len(ranks))
        closed = filler.close()
        counts.extend(closed.ravel().tolist())
        write(waiting, closed[:, 0])
    return ListedPlan(path, counts, degrees)


def _sorted_part(
    part: Path, tiling: _Tiling, degrees: NDArray[np.int64], on_duplicates: Duplicates
) -> tuple[pa.Table, NDArray[np.int64], Positions, Positions]:
    """The pairs of a file by tile, then by places, without those that are there twice."""
    pairs = pa.Table.from_batches(list(_read_stream(part))).combine_chunks()
    numbers, sources, targets = _columns(pairs)
    lower, upper = tiling.places(sources, targets)
    ranks = tiling.ranks(lower, upper)
    couples = lower.astype(np.int64) * len(tiling.place) + upper
    is_reverse = tiling.place[sources] != lower
    order = np.lexsort((is_reverse, couples, ranks))
    couples, is_reverse = couples[order], is_reverse[order]
    is_new_couple = np.append(True, couples[1:] != couples[:-1])
    is_first = is_new_couple | np.append(True, is_reverse[1:] != is_reverse[:-1])
    first_rows = order[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]]
    repeated = order[~is_first]
    if len(repeated):
        on_duplicates(numbers[repeated], numbers[first_rows[~is_first]], sources[repeated], targets[repeated])
    couple_rows = order[is_new_couple]
    np.add.at(degrees, sources[couple_rows], 1)
    np.add.at(degrees, targets[couple_rows], 1)
    kept = order[is_first]
    return pairs.take(pa.array(kept)), ranks[kept], lower[kept], upper[kept]


def _read_stream(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield from reader


def _columns(batch: pa.RecordBatch | pa.Table) -> tuple[NDArray[np.int64], Positions, Positions]:
    numbers, sources, targets = (batch.column(name).to_numpy() for name in LISTED_PAIRS.names)
    return numbers, sources, targets
