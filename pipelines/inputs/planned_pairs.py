"""The pairs of a folder of images, planned in blocks: a selection in closed form, or a list that is sorted on disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from dhpf.config import require_choice
from dhpf.errors import InputError
from dhpf.pairs.image_store import open_image_store
from dhpf.pairs.pair_list import plan_pair_list
from dhpf.planning.blocks import PlannedBlock, plan_spans
from dhpf.planning.listed_blocks import read_block
from dhpf.planning.plan_summary import PlanSummary, summarise
from dhpf.planning.select import SELECTIONS, require_options, select

_BAR_DELAY = 2.0


@dataclass(frozen=True)
class PairsRequest:
    """Which pairs of which folder, and the limits of a block.

    Attributes:
        select: one of SELECTIONS.
        reference, reach, pair_list: for "reference", "neighbours" and "list", and only for these.
    """

    root: str
    select: str
    reference: str | None = None
    reach: int | None = None
    pair_list: str | None = None
    max_images: int = 100
    max_pairs: int = 500

    def __post_init__(self) -> None:
        require_choice("select", self.select, SELECTIONS)
        require_options(self.select, reference=self.reference, reach=self.reach, pair_list=self.pair_list)


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
def planned_pairs(request: PairsRequest, scratch: Path | None = None) -> Iterator[PlannedPairs]:
    """Plans the pairs; a list is sorted on disk, in a folder that is gone when the context ends.

    Args:
        scratch: where that folder is made; default: where the system keeps temporary files.

    Raises:
        InputError: a folder, selection, list or limit that cannot be used.
    """
    images = tuple(open_image_store(request.root, "collection").ids())
    if not images:
        raise InputError(f"collection {request.root!r}: holds no image")
    if request.pair_list is None:
        yield _closed(request, images)
        return
    with tempfile.TemporaryDirectory(prefix=".pairs-", dir=scratch) as folder:
        yield _listed(request, images, Path(request.pair_list), Path(folder))


def _closed(request: PairsRequest, images: tuple[str, ...]) -> PlannedPairs:
    selection = select(images, request.select, reference=request.reference, reach=request.reach)
    if not selection.num_pairs:
        raise InputError(f"select {request.select}: no pair among the {len(images)} images of {request.root!r}")

    def blocks() -> Iterator[PlannedBlock]:
        return plan_spans(selection.spans, max_images=request.max_images, max_pairs=request.max_pairs)

    summary = summarise(blocks(), selection.degrees(), max_images=request.max_images, max_pairs=request.max_pairs)
    return PlannedPairs(selection.images, summary, blocks)


def _listed(request: PairsRequest, images: tuple[str, ...], pair_list: Path, folder: Path) -> PlannedPairs:
    limits = {"max_images": request.max_images, "max_pairs": request.max_pairs}
    with tqdm(unit="row", delay=_BAR_DELAY) as bar:

        def on_progress(what: str, num_rows: int) -> None:
            if bar.desc != what:
                bar.n = 0
                bar.set_description_str(what, refresh=False)
            bar.update(num_rows)

        plan = plan_pair_list(pair_list, images, folder, **limits, on_progress=on_progress)
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
