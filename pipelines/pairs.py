"""The pairs of a collection as a table, in the order in which they are best matched; `dhpf pairs`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from dhpf.config import require_choice
from dhpf.data.blocks import PlannedBlock, plan_spans
from dhpf.data.listed_blocks import POINTS, read_block
from dhpf.data.plan_summary import PlanSummary, summarise
from dhpf.errors import InputError
from dhpf.images import is_text
from dhpf.pairs.image_folder import list_images
from dhpf.pairs.pair_list import plan_pair_list
from dhpf.pairs.selection import CLOSED_SELECTIONS, select
from dhpf.pairs.source import require_folder

SELECTIONS = (*CLOSED_SELECTIONS, "list")

PAIR_TABLE = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
    ]
)
"""One row per pair, block by block; `number` counts from 1, of a list it is the row. `source_points` as in the list."""

ROW_GROUP = 100_000
"""At least so many rows are written at once."""

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
    pair_list: Path | None = None
    max_images: int = 100
    max_pairs: int = 500

    def __post_init__(self) -> None:
        require_choice("--select", self.select, SELECTIONS)
        if (self.pair_list is not None) != (self.select == "list"):
            given = None if self.pair_list is None else str(self.pair_list)
            raise InputError(f"--list: {given!r} with --select {self.select}; give a list with --select list, only")


@dataclass(frozen=True)
class PlannedPairs:
    """The pairs that were asked for, still to be listed.

    Attributes:
        images: ids by position.
        blocks: makes the plan's blocks, one at a time.
        read: (number, source position, target position[, points]) of a block's pairs.
        rejects: file with the rows of a list that cannot be used; None without a list.
    """

    images: tuple[str, ...]
    summary: PlanSummary
    blocks: Callable[[], Iterable[PlannedBlock]]
    read: Callable[[PlannedBlock], pa.RecordBatch]
    rejects: Path | None = None
    num_rejected: int = 0
    first_rejection: str | None = None

    def __str__(self) -> str:
        return f"{len(self.images):,} images, {self.summary.num_pairs:,} pairs\n{self.summary}"


@contextlib.contextmanager
def planned_pairs(request: PairsRequest, scratch: Path | None = None) -> Iterator[PlannedPairs]:
    """Plans the pairs; a list is sorted on disk, in a folder that is gone when the context ends.

    Args:
        scratch: where that folder is made; default: where the system keeps temporary files.

    Raises:
        InputError: a folder, selection, list or limit that cannot be used.
    """
    images = tuple(list_images(require_folder(request.root, "collection")))
    if not images:
        raise InputError(f"collection {request.root!r}: holds no image")
    for image in images:
        if not is_text(image):
            raise InputError(f"collection {request.root!r}: the file name {image!r} is not UTF-8; rename the file")
    if request.pair_list is None:
        yield _closed(request, images)
        return
    for name, value in (("--reference", request.reference), ("--reach", request.reach)):
        if value is not None:
            raise InputError(f"{name}: {value!r} has no meaning with --select list")
    with tempfile.TemporaryDirectory(prefix=".pairs-", dir=scratch) as folder:
        yield _listed(request, images, request.pair_list, Path(folder))


def write_pair_table(plan: PlannedPairs, output: Path) -> None:
    """Writes the pairs as Parquet (PAIR_TABLE), and the rejected rows of a list beside it as NAME.rejects.parquet.

    Raises:
        InputError: a file of that name is there already.
    """
    require_absent(output)
    with tempfile.TemporaryDirectory(prefix=".pairs-", dir=output.parent) as folder:
        unfinished = Path(folder) / output.name
        _write(plan, unfinished)
        if plan.rejects is not None and plan.num_rejected:
            _publish(plan.rejects, rejects_path(output))
        _publish(unfinished, output)


def require_absent(output: Path) -> None:
    """Raises InputError unless the table and its rejects can be written; makes their folder."""
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in (output, rejects_path(output)):
        if path.exists():
            raise InputError(f"--output: {path} is there already; remove it, or choose another name")


def rejects_path(output: Path) -> Path:
    """Where the rejected rows of a list go."""
    return output.with_name(f"{output.stem}.rejects.parquet")


def _closed(request: PairsRequest, images: tuple[str, ...]) -> PlannedPairs:
    selection = select(images, request.select, reference=request.reference, reach=request.reach)
    if not selection.num_pairs:
        raise InputError(f"--select {request.select}: no pair among the {len(images)} images of {request.root!r}")

    def blocks() -> Iterator[PlannedBlock]:
        return plan_spans(selection.spans, max_images=request.max_images, max_pairs=request.max_pairs)

    summary = summarise(blocks(), selection.degrees(), max_images=request.max_images, max_pairs=request.max_pairs)
    return PlannedPairs(selection.images, summary, blocks, _spelled_out)


def _spelled_out(block: PlannedBlock) -> pa.RecordBatch:
    positions = block.positions()
    numbers = range(block.first_pair + 1, block.first_pair + block.num_pairs + 1)
    return pa.record_batch({"number": pa.array(numbers), "source": positions[:, 0], "target": positions[:, 1]})


def _listed(request: PairsRequest, images: tuple[str, ...], pair_list: Path, folder: Path) -> PlannedPairs:
    limits = {"max_images": request.max_images, "max_pairs": request.max_pairs}
    with tqdm(unit="row", delay=_BAR_DELAY) as bar:

        def on_progress(what: str, num_rows: int) -> None:
            if bar.desc != f"{what}: ":
                bar.reset()
                bar.set_description(what)
            bar.update(num_rows)

        plan = plan_pair_list(pair_list, images, folder, **limits, on_progress=on_progress)
    listed = plan.listed
    return PlannedPairs(
        images,
        listed.summary(**limits),
        listed.blocks,
        lambda block: read_block(listed.path, block),
        plan.rejects,
        plan.num_rejected,
        plan.first_rejection,
    )


def _write(plan: PlannedPairs, path: Path) -> None:
    names = pa.array(plan.images, type=pa.string())
    schema: pa.Schema | None = None
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=plan.summary.num_pairs, desc="writing", unit="pair", delay=_BAR_DELAY))
        for batches in _row_groups(map(plan.read, plan.blocks())):
            if schema is None:
                has_points = "points" in batches[0].schema.names
                schema = PAIR_TABLE.append(pa.field("source_points", POINTS)) if has_points else PAIR_TABLE
                writer = stack.enter_context(
                    pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
                )
            pairs = pa.Table.from_batches(batches)
            columns = [pairs["number"], names.take(pairs["source"]), names.take(pairs["target"]), *pairs.columns[3:]]
            writer.write_table(pa.table(columns, schema=schema))
            bar.update(len(pairs))
    if schema is None:
        pq.write_table(PAIR_TABLE.empty_table(), path, compression="zstd", write_page_checksum=True)


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    num_rows = 0
    for batch in batches:
        group.append(batch)
        num_rows += batch.num_rows
        if num_rows >= ROW_GROUP:
            yield group
            group, num_rows = [], 0
    if group:
        yield group


def _publish(finished: Path, path: Path) -> None:
    with finished.open("rb+") as file:
        os.fsync(file.fileno())
    try:
        os.link(finished, path)  # unlike a rename, it overwrites nothing
    except FileExistsError as error:
        raise InputError(f"--output: {path} is there already; remove it, or choose another name") from error
