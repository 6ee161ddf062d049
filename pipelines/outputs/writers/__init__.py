"""The formats that result tables are written in: a module and a line of WRITERS for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from dhpf.config import require_choice
from dhpf.pipelines.outputs.writers.parquet import ParquetWriter


class Writer(Protocol):
    """Makes a file of a table; the same table gives the same bytes."""

    @property
    def suffix(self) -> str:
        """How the file's name ends, with its dot."""

    def to_bytes(self, table: pa.Table) -> bytes:
        """The whole file."""


PARQUET = "parquet"
"""The format that stages themselves read."""

WRITERS: Mapping[str, Writer] = {PARQUET: ParquetWriter()}
"""Each format's writer, by the format's name."""


PART = "part"
"""Name, without suffix, of the table that a task of a stage commits; the parts of all tasks are the stage's table."""


def file_name(name: str, kind: str = PARQUET) -> str:
    """The name of a table's file in a format, such as "part.parquet".

    Raises:
        InputError: an unknown format; the message names the known ones.
    """
    require_choice("format", kind, WRITERS)
    return f"{name}{WRITERS[kind].suffix}"


def table_file(name: str, table: pa.Table, kind: str = PARQUET) -> dict[str, bytes]:
    """A table as a file for StageOutput.commit, such as {"part.parquet": ...}.

    Args:
        name: of the file, without its suffix.
        kind: a name in WRITERS.

    Raises:
        InputError: an unknown format; the message names the known ones.
    """
    return {file_name(name, kind): WRITERS[kind].to_bytes(table)}
