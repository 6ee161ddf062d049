"""Sources of blocks of pairs, which are shard sets and collections, and the job of matching one block.

A job holds all that a worker needs to open the block's pairs and images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dhpf.manifest import CommitRecord
from dhpf.pairs.image_stores import open_image_store
from dhpf.pairs.source import folder_pair, pair_id_of
from dhpf.planning.blocks import PlannedBlock, pairs_of
from dhpf.records import PairRecord
from dhpf.regular_files import Stamp
from dhpf.shards.shards import Shard
from dhpf.storage import location_of


@dataclass(frozen=True)
class RejectedRows:
    """The rows of a pair list that cannot be used.

    Attributes:
        table: Parquet file of them, dhpf.pairs.pair_list.REJECTS.
        num_rows: their number.
        first_reason: why the first of them cannot be used; None where there is none.
    """

    table: Path
    num_rows: int
    first_reason: str | None


class BlockSource(Protocol):
    """Pairs in blocks, and their images."""

    @property
    def name(self) -> str:
        """The name under which outputs, tables and metrics know it."""

    @property
    def digest(self) -> str:
        """sha256 that identifies the pairs and, where their bytes are known, the images."""

    @property
    def num_pairs(self) -> int:
        """How many pairs all blocks hold together."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What besides the digest decides which pairs a block holds, as JSON values for a plan."""

    @property
    def tasks(self) -> list[str]:
        """Names of the blocks, in order, and of the task that keeps the rejected rows, if there is one."""

    @property
    def rejected(self) -> RejectedRows | None:
        """The rows of its pair list that cannot be used; None where there is no list."""

    def jobs(self, missing: set[str]) -> Iterator[BlockJob]:
        """The jobs of the blocks in `missing`, made one at a time."""

    def read(self, image_id: str) -> bytes:
        """The bytes of an image's file.

        Raises:
            ImageError: there is no such image.
            InputError: it cannot be read now, or is damaged.
        """


@dataclass(frozen=True)
class OpenBlock:
    """An opened block: its pairs, and access to its images.

    Attributes:
        numbers: running number of each pair in its set, from 0; of a pair list the row.
        read: gives the bytes of an image's file by the image's id, or raises ImageError.
        within_boxes: whether pairs are matched within their boxes alone, as a user's list asks; those of shards are
            annotations.
    """

    numbers: Sequence[int]
    pairs: Sequence[PairRecord]
    read: Callable[[str], bytes]
    within_boxes: bool = False

    def without(self, numbers: Collection[int]) -> OpenBlock:
        """The block without the pairs of these numbers, and without the images that only they show."""
        left = [place for place, number in enumerate(self.numbers) if number not in numbers]
        return replace(self, numbers=[self.numbers[i] for i in left], pairs=[self.pairs[i] for i in left])

    @cached_property
    def images(self) -> list[tuple[str, bool]]:
        """The images to describe, each once: (id, mirrored)."""
        return list(dict.fromkeys((i, p.mirrored) for p in self.pairs for i in (p.source, p.target)))

    @cached_property
    def kinds(self) -> Mapping[tuple[str, bool], tuple[str, bool]]:
        """What each image shows, as far as the pairs say: the category of the first pair that has one."""
        kinds: dict[tuple[str, bool], tuple[str, bool]] = {}
        for pair in sorted(self.pairs, key=lambda p: not p.category):
            for image in (pair.source, pair.target):
                kinds.setdefault((image, pair.mirrored), (pair.category, pair.mirrored))
        return kinds


@dataclass(frozen=True)
class ShardJob:
    """A block that lies in a shard.

    Attributes:
        task: the block's name in the plan of the stage.
        tar, index: where the shard lies, as in Shard.
        first: running number of its first pair, from 0.
        earlier: what the block has given before, if its failed pairs are to be tried again.
    """

    task: str
    num_pairs: int
    tar: str
    index: str
    first: int
    earlier: CommitRecord | None = None

    def open(self) -> OpenBlock:
        """The block; its images are read from the shard.

        Raises:
            InputError: the shard is not there, or damaged.
        """
        shard = Shard(self.tar, self.index)
        return OpenBlock(range(self.first, self.first + len(shard.pairs)), shard.pairs, shard.image_bytes)


@dataclass(frozen=True)
class CollectionJob:
    """A block of a collection, whose images lie in the collection's folder.

    Attributes:
        root: the collection's folder or URI.
        block: the planned block; its pairs in closed form, or their place in `pairs_file`.
        pairs_file: location of the file with the planned pairs of a list; None for pairs in closed form.
        images: id of each image of the block, by its position in the collection.
        stamps: of each image, by its id, when it was listed; one that has another stamp when it is read is not used.
        earlier: what the block has given before, if its failed pairs are to be tried again.
    """

    root: str
    block: PlannedBlock
    pairs_file: str | None
    images: Mapping[int, str]
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    earlier: CommitRecord | None = None

    @property
    def task(self) -> str:
        """The block's name in the plan of the stage."""
        return self.block.block_id

    @property
    def num_pairs(self) -> int:
        return self.block.num_pairs

    def open(self) -> OpenBlock:
        """The block; its images are read from the collection.

        Raises:
            InputError: the collection's folder or the file of planned pairs is not there, or another one.
        """
        rows = pairs_of(self.block, None if self.pairs_file is None else location_of(self.pairs_file)).to_pylist()
        make = _closed_pair if self.pairs_file is None else _listed_pair
        records = [make(row, self.images[row["source"]], self.images[row["target"]]) for row in rows]
        store = open_image_store(self.root, "collection")

        def read(image_id: str) -> bytes:
            return store.read(image_id, self.stamps.get(image_id))

        return OpenBlock([row["number"] for row in rows], records, read, within_boxes=True)


BlockJob = ShardJob | CollectionJob


def _closed_pair(row: Mapping[str, Any], source: str, target: str) -> PairRecord:
    return folder_pair(row["number"], source, target)


def _listed_pair(row: Mapping[str, Any], source: str, target: str) -> PairRecord:
    points = row.get("points")
    keypoints = None if points is None else np.array(points, dtype=np.float32).reshape(-1, 2)
    return PairRecord(
        pair_id_of(row["number"]),
        row.get("category", ""),
        source,
        target,
        source_keypoints=keypoints,
        source_box=row.get("source_box"),
        target_box=row.get("target_box"),
    )
