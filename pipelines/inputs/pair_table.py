"""Writes the pairs of a collection as a table, in the order of their blocks; for `dhpf pairs`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dhpf.errors import InputError
from dhpf.images import is_text
from dhpf.pipelines.inputs.planned_pairs import PlannedPairs, planned_pairs
from dhpf.pipelines.outputs.tables import NUMBER
from dhpf.pipelines.progress import CountedWork
from dhpf.planning.listed_blocks import BOX, POINTS
from dhpf.planning.select import PairSelect

PAIR_TABLE = pa.schema(
    [
        NUMBER,
        pa.field("source", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
    ]
)
"""One row per pair, block by block; `number` counts from 0, and correspondences of a pair have the same.

A list's table has its category, source_points and boxes, too.
"""

_OF_LISTS = {
    "category": pa.field("category", pa.string()),
    "points": pa.field("source_points", POINTS),
    "source_box": pa.field("source_box", BOX),
    "target_box": pa.field("target_box", BOX),
}
"""Columns that only a list's table may have, by their names in the plan."""

ROW_GROUP = 100_000
"""Rows are written in groups of at least this many."""


@contextlib.contextmanager
def planned_table(
    root: str,
    select: PairSelect,
    *,
    max_images: int | None = None,
    max_pairs: int | None = None,
    scratch: Path | None = None,
) -> Iterator[PlannedPairs]:
    """As `planned_pairs`, but every image's name can stand in a table.

    Raises:
        InputError: as there, or an image's file name is not text.
    """
    with planned_pairs(root, select, max_images=max_images, max_pairs=max_pairs, scratch=scratch) as plan:
        for image in plan.images:
            if not is_text(image):
                raise InputError(f"collection {root!r}: the file name {image!r} is not UTF-8; rename the file")
        yield plan


def write_pair_table(plan: PlannedPairs, output: Path) -> None:
    """Writes the pairs as Parquet (PAIR_TABLE), and the rejected rows of a list beside it as NAME.rejects.parquet.

    Raises:
        InputError: a name that is not that of a Parquet file, or a file of that name is there already.
    """
    require_new_table(output)
    with tempfile.TemporaryDirectory(prefix=".pairs-", dir=output.parent) as folder:
        unfinished = Path(folder) / output.name
        _write(plan, unfinished)
        if plan.rejects is not None and plan.num_rejected:
            _publish(plan.rejects, rejects_path(output))
        _publish(unfinished, output)


def require_new_table(output: Path) -> None:
    """Makes the folder of a table that is to be written.

    Raises:
        InputError: its name is not that of a Parquet file, or it or its rejects are there already.
    """
    if output.suffix.lower() != ".parquet":
        raise InputError(f"--output: {str(output)!r} must end in .parquet, because the table is written as Parquet")
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in (output, rejects_path(output)):
        if path.exists():
            raise InputError(f"--output: {path} is there already; remove it, or choose another name")


def rejects_path(output: Path) -> Path:
    """Where the rejected rows of a list go."""
    return output.with_name(f"{output.stem}.rejects.parquet")


def _write(plan: PlannedPairs, path: Path) -> None:
    names = pa.array(plan.images, type=pa.string())
    schema: pa.Schema | None = None
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(CountedWork("writing pairs", "pair", plan.summary.num_pairs))
        for batches in _row_groups(map(plan.read, plan.blocks())):
            if schema is None:
                schema = pa.schema([*PAIR_TABLE, *(_OF_LISTS[name] for name in batches[0].schema.names[3:])])
                writer = stack.enter_context(
                    pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
                )
            pairs = pa.Table.from_batches(batches)
            columns = [pairs["number"], names.take(pairs["source"]), names.take(pairs["target"]), *pairs.columns[3:]]
            writer.write_table(pa.table(columns, schema=schema))
            work.update(len(pairs))
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
