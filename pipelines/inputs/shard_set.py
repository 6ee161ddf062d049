"""Reads a shard set: the shards that the shard stage made of one split of one pair source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dhpf.errors import InputError
from dhpf.manifest import Manifest
from dhpf.pipelines.inputs.block_source import ShardJob
from dhpf.pipelines.outputs.store import REJECTS_TASK, StageOutput
from dhpf.shards.shards import Shard
from dhpf.storage import Location


@dataclass(frozen=True)
class ShardSet:
    """The shards of SOURCE/SPLIT.

    Attributes:
        name: SOURCE/SPLIT.
        shards: task name of each block, with its shard; blocks whose every pair was rejected are left out.
        thresholds: names of the PCK thresholds that apply, the main one first.
        digest: sha256 of the content: the dataset's fingerprint.
        record: counts and settings of the shard stage.
    """

    name: str
    shards: tuple[tuple[str, Shard], ...]
    thresholds: tuple[str, ...]
    digest: str
    record: dict[str, Any]

    @property
    def num_pairs(self) -> int:
        return int(self.record["num_pairs"])

    @property
    def tasks(self) -> list[str]:
        """Names of the blocks, in order."""
        return [task for task, _ in self.shards]

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides which pairs a block holds: nothing, the digest says it all."""
        return {}

    @property
    def rejected(self) -> None:
        """None: the shard stage keeps the pairs that it rejects."""

    def jobs(self, missing: set[str]) -> Iterator[ShardJob]:
        """The jobs of the blocks in `missing`."""
        first = 0
        for task, shard in self.shards:
            if task in missing:
                tar, index = shard.paths
                yield ShardJob(task, len(shard), tar, index, first)
            first += len(shard)

    def read(self, image_id: str) -> bytes:
        """The bytes of an image's file."""
        return self._shard_of[image_id].image_bytes(image_id)

    @cached_property
    def _shard_of(self) -> dict[str, Shard]:
        return {image: shard for _, shard in self.shards for image in shard.image_ids}


def shard_set_output(stage_folder: Location, name: str) -> StageOutput:
    """The output that the shard stage makes of SOURCE/SPLIT, complete or not, in the stage's folder."""
    return StageOutput(stage_folder / name)


def open_shard_set(stage_folder: Location, name: str) -> ShardSet:
    """Opens a complete shard set.

    Raises:
        InputError: it is not there, not complete, or damaged.
    """
    output = shard_set_output(stage_folder, name)
    manifest = output.manifest()
    if manifest is None:
        raise InputError(f"shard set {name}: not complete in {output.root}; run the shard stage first")
    return ShardSet(
        name=name,
        shards=tuple(_shards(output, manifest)),
        thresholds=tuple(manifest.record["thresholds"]),
        digest=manifest.digest(),
        record=dict(manifest.record),
    )


def joined(sets: Sequence[ShardSet]) -> ShardSet:
    """The pairs of several shard sets as one; thresholds are those of the first that has some."""
    if len(sets) == 1:
        return sets[0]
    digest = hashlib.sha256(" ".join(s.digest for s in sets).encode()).hexdigest()
    return ShardSet(
        name=" + ".join(s.name for s in sets),
        shards=tuple((f"{s.name}/{task}", shard) for s in sets for task, shard in s.shards),
        thresholds=next((s.thresholds for s in sets if s.thresholds), ()),
        digest=digest,
        record={"num_pairs": sum(s.num_pairs for s in sets)},
    )


def _shards(output: StageOutput, manifest: Manifest) -> Sequence[tuple[str, Shard]]:
    shards = []
    for commit in manifest.commits:
        if commit.task != REJECTS_TASK and commit.info["num_pairs"]:
            tar, index = (output.location(commit, name) for name in ("shard.tar", "index.json"))
            content = output.read(commit, "index.json")  # checks its digest; it holds those of the tar's members
            shards.append((commit.task, Shard(tar, index, content)))
    return shards
