"""The shard stage: Ray actors write the pairs of a source, and their images, into shards, one for each block."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from dhpf.errors import InputError
from dhpf.images import ImageError
from dhpf.manifest import CommitRecord, Damaged, canonical_json
from dhpf.pairs import open_pair_source
from dhpf.pairs.pair_list import REJECTS
from dhpf.pipelines.blocks.caution import WHOLE_BLOCK, Caution, Step
from dhpf.pipelines.blocks.pool import BlockWork, do_blocks
from dhpf.pipelines.blocks.retrying import Retry
from dhpf.pipelines.cluster_metrics import CountedReads, StageName, Work, count_work, reasons_of
from dhpf.pipelines.config import ShardConfig, SourceConfig, deciding_settings
from dhpf.pipelines.inputs.image_stamps import UsedImages, digests_of_shards, require_not_replaced
from dhpf.pipelines.inputs.shard_set import ShardSet, open_shard_set, shard_set_output
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.store import REJECTS_TASK, StageOutput
from dhpf.pipelines.outputs.tables import table_of
from dhpf.pipelines.outputs.writers import table_file
from dhpf.pipelines.progress import CountedWork
from dhpf.planning.blocks import Block, plan_blocks
from dhpf.records import PairRecord, Rejection
from dhpf.regular_files import Stamp, UnreadableFile, require_as_listed
from dhpf.shards.pair_json import pair_to_json
from dhpf.shards.shards import Shard, encode_shard
from dhpf.storage import Location, location_of
from dhpf.storage.read_ahead import read_ahead

COUNTS = ("num_pairs", "num_images", "num_bytes")
"""What the task of each block counts."""

NO_REJECTS = canonical_json([])
"""What a block's task says of its rejected pairs where there is none."""

NO_STAMP = Stamp(-1, -1)
"""Of an image that is not there, or is made by its source."""

_log = logging.getLogger(__name__)

MOST_ACTORS = 16
"""Actors that are asked for, as far as the cluster has room; the driver plans the next block only as one is free."""


def shard(config: ShardConfig, folder: Location, retries: Mapping[str, Retry] = MappingProxyType({})) -> list[ShardSet]:
    """Shards every split of every source; complete shard sets are left as they are.

    Args:
        folder: of the stage; SOURCE/SPLIT below it is one shard set.
        retries: by the name of a shard set, if its rejected pairs are to be tried again.

    Raises:
        InputError: a source cannot be used, or the folder holds shards made with other settings or inputs.
        ReplacedImages: it holds shards of other pictures.
    """
    names = [(source, split) for source in config.sources for split in config.sources[source].splits]
    splits = [
        _Split(config, source, split, shard_set_output(folder, f"{source}/{split}"), retries.get(f"{source}/{split}"))
        for source, split in names
    ]
    unfinished = [split for split in splits if split.output.manifest() is None]
    for split in unfinished:
        count_work("shard", Work(errors={"row": len(split.rejections)}))
    for split in _sharded(config, unfinished):
        split.finish()
    return [open_shard_set(folder, split.name) for split in splits]


class _Split:
    """A split of a source whose pairs are planned; its blocks are done by the stage's pool.

    Args:
        retry: if given, rejected pairs are tried again, of a complete shard set, too.

    Raises:
        InputError: the source cannot be used, or the output holds shards made with other settings or inputs, or of
            other pictures.
    """

    def __init__(self, config: ShardConfig, source: str, split: str, output: StageOutput, retry: Retry | None) -> None:
        self.name, self.output, self._retry = f"{source}/{split}", output, retry
        self._config, self._source, self._split = config, config.sources[source], split
        self._started = time.time()
        self._plan, self.rejections, ids = _plan(config, self._source, split)
        output.plan(self._plan)
        self._stamps = _stamps_of(ids, self._source)
        require_not_replaced(output, _used_images(self.name, self._source, output, self._stamps))
        if retry:
            retry.begin(f"shard {self.name}", output, self._num_rejected, [REJECTS_TASK])

    def _num_rejected(self, commit: CommitRecord) -> int:
        return 0 if commit.task == REJECTS_TASK else len(_rejections_of(commit, self.output))

    @property
    def _blocks(self) -> list[str]:
        return [task for task in self._plan["tasks"] if task != REJECTS_TASK]

    def missing(self) -> set[str]:
        """The blocks that are not committed yet."""
        done = self.output.committed()
        return {task for task in self._blocks if task not in done}

    def work(self, missing: set[str]) -> BlockWork[ShardJob]:
        """The blocks that are missing, for the pool."""
        store = None if self._config.store is None else str(location_of(self._config.store) / self.name)
        settings = ShardSettings(self._source, str(self.output.root), store)
        return BlockWork(settings, self._jobs(missing), self.output)

    def _jobs(self, missing: set[str]) -> Iterator[ShardJob]:
        pairs = open_pair_source(self._source.kind, self._source.options).pairs(self._split)
        accepted = (pair for pair in pairs if isinstance(pair, PairRecord))
        blocks = plan_blocks(accepted, max_pairs=self._config.max_pairs, max_images=self._config.max_images)
        stamps = self._stamps
        return (
            ShardJob(
                block,
                {image: stamps.get(image, NO_STAMP) for image in block.images},
                self.output.retried(block.block_id),
            )
            for block in blocks
            if block.block_id in missing
        )

    def finish(self) -> None:
        """Completes the shard set, all of whose blocks are committed.

        Raises:
            InputError: the source changed between planning and sharding.
        """
        plan, rejections = self._plan, list(self.rejections)
        commits = self.output.committed()
        totals: Counter[str] = Counter()
        for task in self._blocks:
            totals.update({key: int(commits[task].info[key]) for key in COUNTS})
            rejections += _rejections_of(commits[task], self.output)
        rejects = table_of(map(dataclasses.asdict, rejections), REJECTS)
        counts = {"num_rejected": len(rejections)}
        self.output.note(self.output.commit(REJECTS_TASK, table_file(REJECTS_TASK, rejects), counts))
        thresholds = open_pair_source(self._source.kind, self._source.options).thresholds
        record = {
            "stage": "shard",
            "name": self.name,
            "settings": {key: plan[key] for key in plan if key != "tasks"},
            **{key: totals[key] for key in COUNTS},
            **counts,
            "first_rejection": rejections[0].reason if rejections else None,
            "thresholds": list(thresholds),
            "code_version": code_version(),
            "seconds": round(time.time() - self._started, 3),
        }
        if totals["num_pairs"] + len(rejections) != plan["num_listed"]:
            raise InputError(
                f"shard set {self.name}: {plan['num_listed']} pairs were listed, but {totals['num_pairs']} written and "
                f"{len(rejections)} rejected, the source changed meanwhile; run again with --restart shard"
            )
        self.output.finish(record)
        if self._retry:
            self._retry.end(f"shard {self.name}", self.output, self._num_rejected)


def _sharded(config: ShardConfig, splits: Sequence[_Split]) -> Iterator[_Split]:
    """Has one pool of actors write the missing blocks of all splits; yields each split once it has all its blocks."""
    missing = [split.missing() for split in splits]
    yield from (split for split, blocks in zip(splits, missing, strict=True) if not blocks)
    begun = [(split, blocks) for split, blocks in zip(splits, missing, strict=True) if blocks]
    if not begun:
        return
    num_left = [len(blocks) for _, blocks in begun]
    num_blocks = sum(num_left)
    found = do_blocks(
        [split.work(blocks) for split, blocks in begun],
        config.resources,
        stuck_after=config.stuck_after,
        num_blocks=num_blocks,
        least=1,
        most=min(MOST_ACTORS, num_blocks),
    )
    with CountedWork("shard", "block", num_blocks) as progress, closing(found):
        for place, _ in found:
            split, _ = begun[place]
            progress.update(1, split.name)
            num_left[place] -= 1
            if not num_left[place]:
                yield split


def _rejections_of(commit: CommitRecord, output: StageOutput) -> list[Rejection]:
    """The pairs that the task of a block rejected; read only where there are some."""
    name = "rejects.json"
    if commit.files[name]["size"] == len(NO_REJECTS):
        return []
    return [Rejection(**rejection) for rejection in json.loads(output.read(commit, name))]


def planned_settings(config: ShardConfig, source: SourceConfig, split: str) -> dict[str, Any]:
    """The part of a split's plan that is known before the source is read."""
    of_source = {"kind": source.kind, "options": dict(source.options), "split": split}
    return {"stage": "shard", **of_source, **deciding_settings(config)}


def _plan(config: ShardConfig, source: SourceConfig, split: str) -> tuple[dict[str, Any], list[Rejection], list[str]]:
    """The plan of a split, the rows of the source that are not usable pairs, and the ids of the pairs' images."""
    rejections: list[Rejection] = []
    digest = hashlib.sha256()
    ids: dict[str, None] = {}
    num_listed = 0

    def accepted() -> Iterator[PairRecord]:
        nonlocal num_listed
        for pair in open_pair_source(source.kind, source.options).pairs(split):
            num_listed += 1
            if isinstance(pair, Rejection):
                digest.update(canonical_json(dataclasses.asdict(pair)))
                rejections.append(pair)
            else:
                digest.update(canonical_json(pair_to_json(pair)))
                ids.update({pair.source: None, pair.target: None})
                yield pair

    tasks = [b.block_id for b in plan_blocks(accepted(), max_pairs=config.max_pairs, max_images=config.max_images)]
    plan = {
        **planned_settings(config, source, split),
        "num_listed": num_listed,
        "pairs_sha256": digest.hexdigest(),
        "tasks": [*tasks, REJECTS_TASK],
    }
    return plan, rejections, list(ids)


def _stamps_of(ids: Sequence[str], source: SourceConfig) -> dict[str, Stamp]:
    """The stamp of each image; NO_STAMP where it has none."""
    stamps = read_ahead(open_pair_source(source.kind, source.options).stamp, ids)
    return {image: stamp or NO_STAMP for image, stamp in zip(ids, stamps, strict=True)}


def _used_images(name: str, source: SourceConfig, output: StageOutput, stamps: Mapping[str, Stamp]) -> UsedImages:
    return UsedImages(
        f"shard set {name}",
        "shard",
        list(stamps),
        np.array(list(stamps.values()), dtype=np.int64).reshape(-1, 2),
        open_pair_source(source.kind, source.options).read,
        partial(digests_of_shards, output, {image: place for place, image in enumerate(stamps)}),
    )


@dataclass(frozen=True)
class ShardJob:
    """A block that is to be written into a shard.

    Attributes:
        stamps: of each image, by its id, when it was planned; one that has another stamp then is not used.
        earlier: what the block has given before, if its rejected pairs are to be tried again.
    """

    block: Block
    stamps: Mapping[str, Stamp]
    earlier: CommitRecord | None = None

    @property
    def task(self) -> str:
        """The block's name in the plan of the stage."""
        return self.block.block_id

    @property
    def num_pairs(self) -> int:
        return len(self.block.pairs)


@dataclass(frozen=True)
class ShardSettings:
    """All that a worker is made from; pickled and sent to the actors.

    Attributes:
        source: the pair source, which reads the images.
        root: folder of the shard set.
        store: URI below which tar files are put; None for the folder of the shard set.
    """

    source: SourceConfig
    root: str
    store: str | None

    @property
    def stage(self) -> StageName:
        return "shard"

    def worker(self) -> ShardWorker:
        """Opens the pair source."""
        return ShardWorker(self)


class ShardWorker:
    """Writes one block after another into a shard and commits it."""

    def __init__(self, settings: ShardSettings) -> None:
        self._source = open_pair_source(settings.source.kind, settings.source.options)
        self._output, self._store = StageOutput(settings.root), settings.store

    def work(self, job: ShardJob, caution: Caution) -> CommitRecord:
        """Writes the shard of a block; a pair whose image cannot be used, or is left out, is rejected with the reason.

        Raises:
            InputError: the images cannot be read now.
        """
        started = time.time()
        reads = CountedReads(self._source.read)
        kept = self._kept(job.earlier)

        def read(image_id: str) -> bytes:
            caution.step(Step.of_image(image_id))
            reason = caution.reason_without(image_id)
            if reason is not None:
                raise ImageError(reason)
            if image_id in kept:
                return kept[image_id]
            data = reads(image_id)
            self._require_unchanged(image_id, job.stamps[image_id])
            return data

        encoded = encode_shard(job.block, read)
        caution.step(WHOLE_BLOCK)
        rejects = canonical_json([dataclasses.asdict(r) for r in encoded.rejections])
        commit = self._output.commit(
            job.task,
            {"shard.tar": encoded.tar, "index.json": encoded.index, "rejects.json": rejects},
            {"num_pairs": encoded.num_pairs, "num_images": encoded.num_images, "num_bytes": len(encoded.tar)},
            {} if self._store is None else {"shard.tar": self._store},
        )
        errors = reasons_of(rejection.reason for rejection in encoded.rejections)
        work = Work(encoded.num_pairs, num_bytes=reads.num_bytes, seconds=time.time() - started, errors=errors)
        count_work("shard", work)
        return commit

    def _require_unchanged(self, image_id: str, planned: Stamp) -> None:
        if planned == NO_STAMP:
            return
        try:
            require_as_listed(self._source.stamp(image_id) or NO_STAMP, f"image {image_id}", planned)
        except UnreadableFile as error:
            raise ImageError(str(error)) from error

    def _kept(self, earlier: CommitRecord | None) -> Mapping[str, bytes]:
        """The images, by id, of the block's earlier shard, whose pairs stay; none where that is damaged."""
        if earlier is None or not earlier.info["num_pairs"]:
            return {}
        try:
            index = self._output.read(earlier, "index.json")
            tar, place = (self._output.location(earlier, name) for name in ("shard.tar", "index.json"))
            shard = Shard(tar, place, index)
            return {image: shard.image_bytes(image) for image in shard.image_ids}
        except Damaged as error:
            _log.warning("%s; the whole block is written again", error)
            return {}
