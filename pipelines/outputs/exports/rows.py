"""What all exports read: rows of correspondences, a part of the table in memory at a time, and the count of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dhpf.errors import InputError
from dhpf.pipelines.outputs.tables import MATCHED
from dhpf.results import Results

Coordinates = npt.NDArray[np.float32]

COLUMNS = (
    "source",
    "target",
    "status",
    "source_size",
    "target_size",
    "source_points",
    "target_points",
    "confidence",
)


@dataclass
class Tally:
    """What became of the rows.

    Attributes:
        num_pairs: rows that were read.
        num_written: rows that the output holds.
        num_matches: matches that it holds.
        left_out: how many rows it does not hold, by reason.
    """

    num_pairs: int = 0
    num_written: int = 0
    num_matches: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def add(self, num_matches: int) -> None:
        """Counts a row that was written."""
        self.num_pairs += 1
        self.num_written += 1
        self.num_matches += num_matches

    def leave_out(self, reason: str) -> None:
        """Counts a row that was not."""
        self.num_pairs += 1
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


NOT_MATCHED = "not matched"


@dataclass(frozen=True)
class PairRow:
    """A row of correspondences.

    Attributes:
        source, target: ids of the images.
        is_matched: else there are no points, and the sizes may be unknown.
        source_size, target_size: (2,) width and height in pixels.
        source_points, target_points: (N, 2) of the matches, in the original images' pixels, the most confident first.
        confidence: (N,) of each match.
    """

    source: str
    target: str
    is_matched: bool
    source_size: npt.NDArray[np.int32]
    target_size: npt.NDArray[np.int32]
    source_points: Coordinates
    target_points: Coordinates
    confidence: npt.NDArray[np.float32]


def pair_rows(found: Results) -> Iterator[PairRow]:
    """The rows, in the order of the pairs.

    Raises:
        InputError: a part is damaged.
    """
    for table in found.tables(COLUMNS):
        columns = {name: table[name].combine_chunks() for name in COLUMNS}
        names = [columns[name].to_pylist() for name in ("source", "target", "status")]
        sizes = [numbers_of(columns[name]).reshape(-1, 2) for name in ("source_size", "target_size")]
        points = [_of_each_row(columns[name], 2) for name in ("source_points", "target_points")]
        confidence = _of_each_row(columns["confidence"], 1)
        for source, target, status, *others in zip(*names, *sizes, *points, confidence, strict=True):
            yield PairRow(source, target, status == MATCHED, *others)


def numbers_of(column: pa.Array) -> npt.NDArray[np.float32]:
    """The numbers in a column of lists, or of lists of points, one after the other; a null has none."""
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    return np.asarray(column.to_numpy(zero_copy_only=False))


def lengths_of(column: pa.Array) -> npt.NDArray[np.int64]:
    """The length of each row's list; 0 of a null."""
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)).astype(np.int64)


def _of_each_row(column: pa.Array, width: int) -> Sequence[npt.NDArray[np.float32]]:
    values = numbers_of(column).reshape(-1, width) if width > 1 else numbers_of(column)
    return np.split(values, np.cumsum(lengths_of(column))[:-1])


def missing_extra(kind: str, package: str) -> InputError:
    """The error where the package that writes a format is not installed."""
    return InputError(f"--format {kind}: needs {package}, which is not installed: pip install 'dhpf[{kind}]'")
