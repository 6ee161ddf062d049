"""Plans the pairs of a folder or bucket of images in blocks.

Pairs that a rule chooses are counted and cut without being listed; a user's list is sorted on disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.pairs.image_stores import Listing, Remark, list_images
from dhpf.pairs.pair_list import pair_list_file, plan_pair_list
from dhpf.pipelines.progress import CountedWork
from dhpf.planning.blocks import BlockLimits, PlannedBlock, block_limits, pairs_of, plan_spans
from dhpf.planning.plan_summary import PlanSummary, num_degrees, summarise
from dhpf.planning.select import ChosenPairs, PairList, PairSelect, choose_pairs
from dhpf.storage import location_of


@dataclass(frozen=True)
class PlannedPairs:
    """The chosen pairs of a collection, in blocks, still to be listed.

    Attributes:
        images: ids; a pair refers to its images by their positions here.
        stamps: (num_images, 2) int64, the size and the version (dhpf.regular_files.Stamp) of each.
        remarks: what is skipped of what lies beside the images.
        limits: what the blocks may hold at most.
        summary: how many blocks, pairs and images there are.
        blocks: makes the plan's blocks, one at a time.
        path: file with the pairs of a list; None where a rule chose them.
        rejects: file with the rows of a list that cannot be used; None without a list.
        num_rejected: how many rows these are.
        first_rejection: why one of them is rejected; None if none is.
    """

    images: tuple[str, ...]
    stamps: NDArray[np.int64]
    remarks: tuple[Remark, ...]
    limits: BlockLimits
    summary: PlanSummary
    blocks: Callable[[], Iterable[PlannedBlock]]
    path: Path | None = None
    rejects: Path | None = None
    num_rejected: int = 0
    first_rejection: str | None = None

    def read(self, block: PlannedBlock) -> pa.RecordBatch:
        """The pairs of a block, as `pairs_of` gives them."""
        return pairs_of(block, None if self.path is None else location_of(self.path))

    def __str__(self) -> str:
        lines = [
            f"{len(self.images):,} images, {self.summary.num_pairs:,} pairs",
            str(self.summary),
            *map(str, self.remarks),
        ]
        return "\n".join(lines)


@contextlib.contextmanager
def planned_pairs(
    root: str,
    select: PairSelect,
    *,
    max_images: int | None = None,
    max_pairs: int | None = None,
    scratch: Path | None = None,
) -> Iterator[PlannedPairs]:
    """Plans the pairs; a list is sorted on disk, in a folder that is gone when the context ends.

    Args:
        root: folder or s3:// URI of the images.
        max_images, max_pairs: what a block may hold; None leaves it to dhpf.planning.blocks.
        scratch: where that folder is made; default: where the system keeps temporary files.

    Raises:
        InputError: a root, an option of `select`, a list or a limit that cannot be used, or no pair to plan.
    """
    listing = list_images(root, "collection")
    if isinstance(select, PairList):
        with tempfile.TemporaryDirectory(prefix=".pairs-", dir=scratch) as folder:
            yield _listed(pair_list_file(select.pair_list), listing, Path(folder), max_images, max_pairs)
        return
    chosen = choose_pairs(select, listing.images)
    if not chosen.num_pairs:
        raise InputError(f"select {select.name}: no pair among the {len(listing.images)} images of {root!r}")
    yield _closed(chosen, listing, block_limits(chosen.num_pairs, max_images=max_images, max_pairs=max_pairs))


def _closed(chosen: ChosenPairs, listing: Listing, limits: BlockLimits) -> PlannedPairs:
    bounds = dataclasses.asdict(limits)

    def blocks() -> Iterator[PlannedBlock]:
        return plan_spans(chosen.spans, **bounds)

    degrees = num_degrees(chosen.spans, len(chosen.images))
    stamps = _in_order_of(chosen.images, listing)
    return PlannedPairs(chosen.images, stamps, listing.remarks, limits, summarise(blocks(), degrees, **bounds), blocks)


def _in_order_of(images: tuple[str, ...], listing: Listing) -> NDArray[np.int64]:
    """The stamps of a listing's images in another order of these."""
    if images == listing.images:
        return listing.stamps
    stamps = np.empty_like(listing.stamps)
    stamps[sorted(range(len(images)), key=images.__getitem__)] = listing.stamps
    return stamps


def _listed(path: Path, listing: Listing, folder: Path, max_images: int | None, max_pairs: int | None) -> PlannedPairs:
    """A list's pairs are counted by planning it; a short one is then planned again, in smaller blocks."""
    limits = block_limits(None, max_images=max_images, max_pairs=max_pairs)
    plan = _sorted(path, listing, folder, limits)
    fitting = block_limits(plan.summary.num_pairs, max_images=max_images, max_pairs=max_pairs)
    return plan if fitting == limits else _sorted(path, listing, folder, fitting)


def _sorted(path: Path, listing: Listing, folder: Path, limits: BlockLimits) -> PlannedPairs:
    bounds = dataclasses.asdict(limits)
    with contextlib.ExitStack() as shown:
        work: CountedWork | None = None

        def on_progress(what: str, num_rows: int) -> None:
            nonlocal work
            if work is None or work.title != what:
                shown.close()
                work = shown.enter_context(CountedWork(what, "row"))
            work.update(num_rows)

        plan = plan_pair_list(path, listing.images, folder, **bounds, on_progress=on_progress)
    listed = plan.listed
    return PlannedPairs(
        listing.images,
        listing.stamps,
        listing.remarks,
        limits,
        listed.summary(**bounds),
        listed.blocks,
        listed.path,
        plan.rejects,
        plan.num_rejected,
        plan.first_rejection,
    )
