"""The pairs of a folder or bucket of images, planned in blocks: in closed form, or a list that is sorted on disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dhpf.errors import InputError
from dhpf.pairs.image_store import open_image_store
from dhpf.pairs.pair_list import plan_pair_list
from dhpf.pipelines.progress import CountedWork
from dhpf.planning.blocks import PlannedBlock, plan_spans
from dhpf.planning.listed_blocks import read_block
from dhpf.planning.plan_summary import PlanSummary, summarise
from dhpf.planning.select import ClosedSelect, PairList, PairSelect, choose_pairs
from dhpf.planning.span_arrays import num_degrees


@dataclass(frozen=True)
class PlannedPairs:
    """The pairs that were asked for, still to be listed.

    Attributes:
        images: ids by position.
        blocks: makes the plan's blocks, one at a time.
        path: file with the pairs of a list; None of a selection in closed form.
        rejects: file with the rows of a list that cannot be used; None without a list.
    """

    images: tuple[str, ...]
    summary: PlanSummary
    blocks: Callable[[], Iterable[PlannedBlock]]
    path: Path | None = None
    rejects: Path | None = None
    num_rejected: int = 0
    first_rejection: str | None = None

    def read(self, block: PlannedBlock) -> pa.RecordBatch:
        """The pairs of a block, as `pairs_of` gives them."""
        return pairs_of(block, self.path)

    def __str__(self) -> str:
        return f"{len(self.images):,} images, {self.summary.num_pairs:,} pairs\n{self.summary}"


def pairs_of(block: PlannedBlock, path: Path | None) -> pa.RecordBatch:
    """(number, source position, target position[, category][, points]) of a block's pairs; numbers count from 0.

    Args:
        path: file with the pairs of a list, whose numbers are its rows; None for a block in closed form.
    """
    if path is not None:
        return read_block(path, block)
    positions = block.positions()
    numbers = range(block.first_pair, block.first_pair + block.num_pairs)
    return pa.record_batch({"number": pa.array(numbers), "source": positions[:, 0], "target": positions[:, 1]})


@contextlib.contextmanager
def planned_pairs(
    root: str, select: PairSelect, *, max_images: int, max_pairs: int, scratch: Path | None = None
) -> Iterator[PlannedPairs]:
    """Plans the pairs; a list is sorted on disk, in a folder that is gone when the context ends.

    Args:
        root: folder or s3:// URI of the images.
        max_images, max_pairs: of a block.
        scratch: where that folder is made; default: where the system keeps temporary files.

    Raises:
        InputError: a root, an option of `select`, a list or a limit that cannot be used, or no pair to plan.
    """
    images = open_image_store(root, "collection").ids()
    if not images:
        raise InputError(f"collection {root!r}: holds no image")
    limits = {"max_images": max_images, "max_pairs": max_pairs}
    if not isinstance(select, PairList):
        plan = _closed(select, images, limits)
        if not plan.summary.num_pairs:
            raise InputError(f"select {select.name}: no pair among the {len(images)} images of {root!r}")
        yield plan
        return
    with tempfile.TemporaryDirectory(prefix=".pairs-", dir=scratch) as folder:
        yield _listed(Path(select.pair_list), tuple(images), limits, Path(folder))


def _closed(select: ClosedSelect, images: Sequence[str], limits: Mapping[str, int]) -> PlannedPairs:
    chosen = choose_pairs(select, images)

    def blocks() -> Iterator[PlannedBlock]:
        return plan_spans(chosen.spans, **limits)

    degrees = num_degrees(chosen.spans, len(images))
    return PlannedPairs(chosen.images, summarise(blocks(), degrees, **limits), blocks)


def _listed(path: Path, images: tuple[str, ...], limits: Mapping[str, int], folder: Path) -> PlannedPairs:
    with contextlib.ExitStack() as shown:
        work: CountedWork | None = None

        def on_progress(what: str, num_rows: int) -> None:
            nonlocal work
            if work is None or work.title != what:
                shown.close()
                work = shown.enter_context(CountedWork(what, "row"))
            work.update(num_rows)

        plan = plan_pair_list(path, images, folder, **limits, on_progress=on_progress)
    listed = plan.listed
    return PlannedPairs(
        images,
        listed.summary(**limits),
        listed.blocks,
        listed.path,
        plan.rejects,
        plan.num_rejected,
        plan.first_rejection,
    )
