"""Reads a user's list of pairs, CSV or Parquet, and plans its blocks; the list may be larger than memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.images import is_text
from dhpf.pairs.source import pair_id_of, points_of, read_table, require_columns
from dhpf.planning.blocks import LISTED_PAIRS
from dhpf.planning.listed_blocks import BOX, POINTS, ListedPlan, Progress, plan_listed
from dhpf.records import NO_BOX, Box, Points, Rejection, box_of
from dhpf.regular_files import open_regular
from dhpf.storage import is_uri, location_of
from dhpf.storage.copies import local_file

REJECTS_FILE = "rejects.parquet"

BATCH_ROWS = 250_000
"""Rows that are in memory at once."""

REJECTS = pa.schema([(name, pa.string()) for name in ("pair_id", "source", "target", "reason")])
"""Pairs that cannot be used, and why."""

_REQUIRED = ("source", "target")
_BOXES = ("source_box", "target_box")
_OPTIONAL = ("category", "source_points", *_BOXES)


@dataclass(frozen=True)
class PairListPlan:
    """The blocks of a pair list. Rows in = pairs planned + rows rejected.

    Attributes:
        listed: the blocks, and the file that their pairs lie in; a pair's number is its row in the list, from 0.
        rejects: a Parquet file with a row for each Rejection.
        num_rejected: how many there are.
        first_rejection: the reason of one of them, or None.
    """

    listed: ListedPlan
    rejects: Path
    num_rejected: int
    first_rejection: str | None


def plan_pair_list(
    path: Path,
    images: Sequence[str],
    folder: Path,
    *,
    max_images: int,
    max_pairs: int,
    on_progress: Progress = lambda what, num_pairs: None,
) -> PairListPlan:
    """Plans the blocks of a list, so that pairs with common images share a block; memory does not grow with the list.

    Args:
        path: CSV or Parquet with the columns source and target and, if wanted, category, source_points ("x,y;x,y;..."
            in CSV, lists of [x, y] in Parquet), source_box and target_box ("x0,y0,x1,y1", or lists of these).
        images: ids of the collection; positions in the written pairs are positions in it.
        folder: for pairs.arrow (dhpf.planning.blocks.read_block reads it) and rejects.parquet.

    Raises:
        InputError: the list as a whole cannot be read, or a limit that no pair can keep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _Rejects(folder / REJECTS_FILE) as rejects:

        def on_duplicates(*columns: NDArray[np.integer[Any]]) -> None:
            for number, first, source, target in zip(*(column.tolist() for column in columns), strict=True):
                rejects.add(rejection(path, number, images[source], images[target], already_there(first)))

        listed = plan_listed(
            _positions(path, images, rejects),
            len(images),
            folder,
            max_images=max_images,
            max_pairs=max_pairs,
            on_duplicates=on_duplicates,
            on_progress=on_progress,
        )
    return PairListPlan(listed, folder / REJECTS_FILE, rejects.count, rejects.first)


def pair_list_file(pair_list: str) -> Path:
    """The file of a list on this machine; a list in a bucket is fetched once.

    Raises:
        InputError: there is no such object, or the store does not give it.
    """
    return local_file(location_of(pair_list)) if is_uri(pair_list) else Path(pair_list)


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each row of a pair list with its number, from 0.

    Raises:
        InputError: the file is missing, damaged, or lacks a required column.
    """
    if path.suffix.lower() != ".parquet":
        return enumerate(row for _, row in read_table(path, _REQUIRED))
    return enumerate(row for batch in _parquet_batches(path, None, 10_000) for row in batch.to_pylist())


def parse_points(value: Any) -> Points | None:
    """(K, 2) points of a list's field, None of an empty one; raises ValueError or TypeError for anything else."""
    if value is None or value == "":
        return None
    points = [part.split(",") for part in value.split(";")] if isinstance(value, str) else value
    if any(len(point) != 2 for point in points):
        raise ValueError("points are written x,y;x,y;...")
    return points_of([float(x) for x, _ in points], [float(y) for _, y in points])


def parse_box(value: Any, name: str) -> Box | None:
    """A box of a list's field of that name, None of an empty one; raises ValueError for anything else."""
    if value is None or value == "":
        return None
    try:
        return box_of([float(number) for number in (value.split(",") if isinstance(value, str) else value)])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} {value!r}: {NO_BOX}") from error


def rejection(path: Path, number: int, source: str, target: str, reason: str) -> Rejection:
    """The rejection of the row with this number, from 0; the reason names the row as an editor counts it, from 1."""
    return Rejection(pair_id_of(number), source, target, f"{path} row {number + 1}: {reason}")


def not_there(image: str) -> str:
    """Why a row is rejected whose image is unknown."""
    return f"image {image!r} is not in the folder"


def twice_the_same(image: str) -> str:
    """Why a row is rejected whose source is its target."""
    return f"names the same image {image!r} twice"


def already_there(first: int) -> str:
    """Why a row is rejected that repeats the one with the number `first`."""
    return f"the pair is already on row {first + 1}"


class _Rejects:
    """Writes rejections to a Parquet file, and holds few of them in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[Rejection] = []
        self.count = 0
        self.first: str | None = None

    def __enter__(self) -> _Rejects:
        self._writer = pq.ParquetWriter(self._path, REJECTS, compression="zstd", write_page_checksum=True)
        return self

    def add(self, rejected: Rejection) -> None:
        self.count += 1
        self.first = self.first or rejected.reason
        self._waiting.append(rejected)
        if len(self._waiting) == 10_000:
            self._flush()

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = [[getattr(rejected, name) for rejected in self._waiting] for name in REJECTS.names]
        self._writer.write_table(pa.table(columns, schema=REJECTS))
        self._waiting.clear()


def _positions(path: Path, images: Sequence[str], rejects: _Rejects) -> Iterator[pa.RecordBatch]:
    """The usable rows as positions (LISTED_PAIRS); the others go to `rejects`."""
    # A file name that is no text cannot be in a list; its place stays empty.
    known = pa.array([image if is_text(image) else None for image in images], type=pa.string())
    composed = None if pc.all(pc.string_is_ascii(known)).as_py() else pc.utf8_normalize(known, form="NFC")
    first = 0
    for batch in _batches(path):
        sources, targets = (_texts(path, batch, name) for name in _REQUIRED)
        found = [_places(names, known, composed) for names in (sources, targets)]
        columns = [pa.array(range(first, first + len(batch)), type=pa.int64()), *found]
        schema, unusable = LISTED_PAIRS, dict[int, str]()
        if "category" in batch.schema.names:
            columns.append(pc.fill_null(_texts(path, batch, "category"), ""))
            schema = schema.append(pa.field("category", pa.string(), nullable=False))
        if "source_points" in batch.schema.names:
            points, unusable = _points_column(batch.column("source_points"))
            columns.append(points)
            schema = schema.append(pa.field("points", POINTS))
        for name in _BOXES:
            if name in batch.schema.names:
                boxes, without = _row_by_row(batch.column(name), BOX, partial(parse_box, name=name))
                columns.append(boxes)
                schema, unusable = schema.append(pa.field(name, BOX)), without | unusable
        usable = pc.fill_null(pc.not_equal(found[0], found[1]), False).to_numpy(zero_copy_only=False).copy()
        usable[list(unusable)] = False
        for row in (~usable).nonzero()[0].tolist():
            source, target = sources[row].as_py() or "", targets[row].as_py() or ""
            missing = [name for name, column in ((source, found[0]), (target, found[1])) if not column[row].is_valid]
            same = twice_the_same(source) if source == target else unusable.get(row, "")
            rejects.add(rejection(path, first + row, source, target, not_there(missing[0]) if missing else same))
        kept = pa.array(usable)
        yield pa.record_batch([column.filter(kept) for column in columns], schema=schema)
        first += len(batch)


def _places(names: pa.Array, known: pa.Array, composed: pa.Array | None) -> pa.Array:
    """The place of each name among the known ones, else among the composed ones; null for a name that is in neither."""
    places = pc.index_in(names, value_set=known, skip_nulls=True)
    if composed is not None:
        as_composed = pc.utf8_normalize(names, form="NFC")
        places = pc.coalesce(places, pc.index_in(as_composed, value_set=composed, skip_nulls=True))
    return places.cast(pa.int32())


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix.lower() == ".parquet":
        yield from _parquet_batches(path, (*_REQUIRED, *_OPTIONAL), BATCH_ROWS)
        return
    rows = (row for _, row in read_table(path, _REQUIRED))
    while chunk := list(itertools.islice(rows, min(BATCH_ROWS, 25_000))):
        names = [name for name in (*_REQUIRED, *_OPTIONAL) if name in chunk[0]]
        yield pa.record_batch({name: pa.array([row[name] for row in chunk], type=pa.string()) for name in names})


def _parquet_batches(path: Path, wanted: Sequence[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of a Parquet file's wanted columns, as far as it has them."""
    try:
        # Without pre_buffer=False the reader keeps all of the file that it has read until it is closed.
        with (
            open_regular(path, f"pair list {path}") as opened,
            pq.ParquetFile(opened, page_checksum_verification=True, buffer_size=2**20, pre_buffer=False) as file,
        ):
            names = file.schema_arrow.names
            require_columns(path, names, _REQUIRED)
            columns = wanted and [name for name in wanted if name in names]
            for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
                batch.validate(full=True)  # texts of a damaged or hostile file need not be UTF-8
                yield batch
    except FileNotFoundError as error:
        raise InputError(f"pair list {path}: no such file") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names of columns need not be text
        raise InputError(f"pair list {path}: not a readable Parquet file ({error})") from error


def _texts(path: Path, batch: pa.RecordBatch, name: str) -> pa.Array:
    try:
        return batch.column(name).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        kind = batch.schema.field(name).type
        raise InputError(f"pair list {path}: column {name!r} holds {kind}, expected text") from error


def _points_column(values: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """The points as POINTS, and why some rows have none that can be used."""
    if not pa.types.is_string(values.type):
        try:
            points = values.cast(POINTS)
            each = points.flatten()
            numbers = each.flatten()
            if not each.null_count and not numbers.null_count and pc.all(pc.is_finite(numbers), min_count=0).as_py():
                return points, {}
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass  # some row is unusable: find out which

    def parsed(value: Any) -> list[list[float]] | None:
        found = parse_points(value)
        return None if found is None else found.tolist()

    return _row_by_row(values, POINTS, parsed)


def _row_by_row(values: pa.Array, kind: pa.DataType, parse: Callable[[Any], object]) -> tuple[pa.Array, dict[int, str]]:
    """The values as they are parsed, null where that fails, and why it fails, by the row."""
    parsed, reasons = list[object](), dict[int, str]()
    for row, value in enumerate(values.to_pylist()):
        try:
            parsed.append(parse(value))
        except (ValueError, TypeError) as error:
            parsed.append(None)
            reasons[row] = str(error)
    return pa.array(parsed, type=kind), reasons
