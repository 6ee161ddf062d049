"""Opens the results of a run: the tables of a match or an evaluation as Arrow, as pandas, or row by row.

    import dhpf.results

    found = dhpf.results.open("dhpf-work/match-folder")  # or s3://BUCKET/WORK/match-folder
    found.to_pandas()

Only files that the output's manifest names are read, and only if they are as they were written: size, digest, and the
checksum of each page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dhpf.errors import InputError
from dhpf.manifest import MANIFEST, REPAIR, CommitRecord, Damaged, Manifest, file_location, read_file, read_manifest
from dhpf.storage import Location, location_of

if TYPE_CHECKING:
    import pandas as pd

TABLE_NAMES = ("part.parquet", "scores.parquet")
"""What the files are called that a table's rows are in."""

REJECTS = "rejects.parquet"


@dataclass(frozen=True)
class Results:
    """The table of one complete output.

    Attributes:
        folder: location of the output.
        record: what the stage says of it: counts, settings, the model, the code's version.
    """

    folder: Location
    record: Mapping[str, Any]
    _commits: Sequence[CommitRecord]

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The table's parts, in the order of the pairs, one in memory at a time.

        Args:
            columns: only these; None for all.

        Raises:
            InputError: a part is damaged, or has no such column.
        """
        for commit, name in self._files(TABLE_NAMES):
            yield self._read(commit, name, columns)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole table.

        Raises:
            InputError: a part is damaged, or has no such column.
        """
        return pa.concat_tables(self.tables(columns))

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The whole table as a DataFrame.

        Raises:
            InputError: a part is damaged, or has no such column.
        """
        frame: pd.DataFrame = self.table(columns).to_pandas()
        return frame

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, one part in memory at a time."""
        for table in self.tables():
            yield from table.to_pylist()

    def rejected(self) -> pa.Table | None:
        """The rows of the pair list that could not be used, with reasons; None for an output without such a table."""
        parts = [self._read(commit, name, None) for commit, name in self._files((REJECTS,))]
        return pa.concat_tables(parts) if parts else None

    def _read(self, commit: CommitRecord, name: str, columns: Sequence[str] | None) -> pa.Table:
        content = read_file(self.folder, commit, name)
        try:
            schema = pq.read_schema(pa.BufferReader(content))
            missing = [name for name in columns or () if name not in schema.names]
            if missing:
                raise InputError(f"column {missing[0]!r}: not in the table; it has {', '.join(schema.names)}")
            wanted = columns and list(columns)
            return pq.read_table(pa.BufferReader(content), columns=wanted, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            where = file_location(self.folder, commit, name)
            raise Damaged(f"table {where}: damaged ({error}); {REPAIR}") from error

    def _files(self, names: Sequence[str]) -> Iterator[tuple[CommitRecord, str]]:
        return ((commit, name) for commit in self._commits for name in commit.files if name in names)


def open(folder: str | Path | Location) -> Results:
    """Opens a complete output of the match or evaluate stage.

    Args:
        folder: path or s3:// URI of the output, WORK/WORKFLOW/match/COLLECTION or
            WORK/WORKFLOW/evaluate/SOURCE/SPLIT/METHOD/scores (or `predictions`); or one above it, if there is only
            one output with a table below.

    Raises:
        InputError: there is no complete output with a table, or several.
    """
    root = location_of(folder)
    found = _with_table(root)
    if found is not None:
        return Results(root, found.record, found.commits)
    below = _keys_with_table(root)
    if len(below) == 1:
        return open(root / below[0])
    if below:
        raise InputError(f"results {root}: holds several tables; open one of {', '.join(below)}")
    raise InputError(f"results {root}: no complete output with a table; give the folder that the run's summary names")


def outputs_with_table(folder: str | Path | Location) -> list[Location]:
    """The complete outputs with a table at a location, or else below it, sorted by their keys."""
    root = location_of(folder)
    return [root] if _with_table(root) else [root / key for key in _keys_with_table(root)]


def reading_line(folder: Location) -> str:
    """A line of Python that reads the table of an output, for whoever wants to go on with it."""
    return f'import dhpf.results; dhpf.results.open("{folder}").to_pandas()'


def _keys_with_table(root: Location) -> list[str]:
    """Where below a location complete outputs with a table lie."""
    names = [entry.key.rpartition("/") for entry in root.entries()]
    return [key for key, _, name in names if key and name == MANIFEST and _with_table(root / key)]


def _with_table(root: Location) -> Manifest | None:
    manifest = read_manifest(root)
    if manifest is None or not any(name in TABLE_NAMES for commit in manifest.commits for name in commit.files):
        return None
    return manifest
