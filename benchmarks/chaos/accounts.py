"""Accounts of what a run has stored: which of the rows of an undisturbed run are lost, doubled or changed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pyarrow import fs

import dhpf.results
from dhpf.errors import InputError
from dhpf.manifest import read_file, read_manifest
from dhpf.storage import Location

MEASURED = ("seconds",)
"""Columns that hold a time: they differ between any two runs."""

Row = tuple[str, str]
"""A row's key, which is unique in an undisturbed run, and the digest of all its columns."""


@dataclass(frozen=True)
class Account:
    """Rows of a run, counted against those of an undisturbed one.

    Attributes:
        expected: rows that the undisturbed run has.
        lost: of these, those that are not there.
        doubled: rows that are there once more than expected, each time counted.
        corrupt: rows that are there once and hold something else.
        foreign: rows that no undisturbed run has.
    """

    expected: int
    lost: int
    doubled: int
    corrupt: int
    foreign: int

    def __add__(self, other: Account) -> Account:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Account(*(one + another for one, another in pairs))

    @property
    def is_exact(self) -> bool:
        """Whether all rows are there once, as they should be."""
        return self.lost == self.doubled == self.corrupt == self.foreign == 0


NOTHING = Account(0, 0, 0, 0, 0)


def account(expected: Iterable[Row], found: Iterable[Row]) -> Account:
    """Counts the rows found against those expected."""
    right, there = dict(expected), list(found)
    times = Counter(key for key, _ in there)
    return Account(
        expected=len(right),
        lost=sum(key not in times for key in right),
        doubled=sum(number - 1 for number in times.values()),
        corrupt=len({key for key, digest in there if right.get(key, digest) != digest}),
        foreign=sum(key not in right for key in times),
    )


def stored_rows(run: Location, stages: Iterable[str]) -> Iterator[Row]:
    """The rows of all outputs of a run: of shards the files, of tables the rows, none of an output that is damaged."""
    for stage in stages:
        for folder in sorted(_outputs(run / stage)):
            output = run / stage / folder
            yield from _shard_files(output, f"{stage}/{folder}") if stage == "shard" else _table_rows(output, folder)


def _outputs(stage: Location) -> set[str]:
    """The folders below a stage's that hold an output, complete or not."""
    return {
        entry.key.removesuffix("PLAN.json").rstrip("/") for entry in stage.entries() if entry.key.endswith("PLAN.json")
    }


def _shard_files(output: Location, title: str) -> Iterator[Row]:
    manifest = read_manifest(output)
    for commit in manifest.commits if manifest else ():
        for name in commit.files:
            try:
                yield f"{title} {commit.task} {name}", hashlib.sha256(read_file(output, commit, name)).hexdigest()
            except InputError as error:
                print(f"damaged: {error}", flush=True)


def _table_rows(output: Location, title: str) -> Iterator[Row]:
    try:
        rows = dhpf.results.open(output).table().to_pylist()
    except InputError as error:
        print(f"damaged: {error}", flush=True)
        return
    for row in rows:
        yield f"{title} {row['number']} {row['pair_id']} {row.get('metric', '')}", digest_of(row)


def digest_of(row: Mapping[str, object]) -> str:
    """sha256 over all columns of a row but those that are a time."""
    kept = {name: value for name, value in row.items() if name not in MEASURED}
    return hashlib.sha256(repr(sorted(kept.items())).encode()).hexdigest()


def listing(run: Location, stages: Iterable[str]) -> list[list[object]]:
    """Which files lie below a run's stages, of what size, and when they were written."""
    files, folder = fs.FileSystem.from_uri(str(run))
    found = [
        info for stage in stages for info in files.get_file_info(fs.FileSelector(f"{folder}/{stage}", recursive=True))
    ]
    return sorted([info.path, info.size, info.mtime_ns] for info in found if info.is_file)
