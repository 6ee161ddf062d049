"""A collection, which the match stage reads: a folder of images, and the plan of the pairs to match."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhpf.pairs.image_stores import open_image_store
from dhpf.pairs.pair_list import pair_list_file
from dhpf.pipelines.config import CollectionConfig, deciding_settings
from dhpf.pipelines.inputs.block_source import CollectionJob, RejectedRows
from dhpf.pipelines.inputs.planned_pairs import PlannedPairs, planned_pairs
from dhpf.pipelines.outputs.store import REJECTS_TASK
from dhpf.planning.blocks import LARGEST_BLOCK, block_name, images_within
from dhpf.planning.select import PairList
from dhpf.regular_files import Stamp, open_regular
from dhpf.storage import FileLocation, Location, location_of


@dataclass(frozen=True)
class Collection:
    """Images as they lie in a folder, and the plan of their pairs.

    Attributes:
        name: as the workflow calls it.
        config: as the workflow describes it.
        plan: its pairs in blocks.
        pairs_file: where the planned pairs of a list lie; None where a rule chose them.
    """

    name: str
    config: CollectionConfig
    plan: PlannedPairs
    pairs_file: Location | None = None

    @property
    def num_pairs(self) -> int:
        return self.plan.summary.num_pairs

    @property
    def tasks(self) -> list[str]:
        """Names of the blocks, in order, and of the task that keeps a list's rejects."""
        blocks = [block_name(index) for index in range(self.plan.summary.num_blocks)]
        return blocks if self.plan.rejects is None else [*blocks, REJECTS_TASK]

    @property
    def digest(self) -> str:
        """sha256 over the image ids and the pair list; digests of the images themselves stand in the results."""
        digest = hashlib.sha256("\n".join(self.plan.images).encode("utf-8", "surrogateescape"))
        if isinstance(self.config.select, PairList):
            path = pair_list_file(self.config.select.pair_list)
            with open_regular(path, f"pair list {path}") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides which pairs a block holds."""
        return deciding_settings(self.config) | dataclasses.asdict(self.plan.limits)

    @property
    def rejected(self) -> RejectedRows | None:
        """The rows of the list that cannot be used; None without a list."""
        if self.plan.rejects is None:
            return None
        return RejectedRows(self.plan.rejects, self.plan.num_rejected, self.plan.first_rejection)

    def jobs(self, missing: set[str]) -> Iterator[CollectionJob]:
        """The jobs of the blocks in `missing`, made one at a time."""
        pairs_file = None if self.pairs_file is None else str(self.pairs_file)
        for block in self.plan.blocks():
            if block.block_id in missing:
                pairs = self.plan.read(block)
                used = np.unique(np.concatenate([pairs.column(side).to_numpy() for side in ("source", "target")]))
                images = {position: self.plan.images[position] for position in used.tolist()}
                stamps = {
                    self.plan.images[position]: Stamp(*self.plan.stamps[position].tolist()) for position in images
                }
                yield CollectionJob(self.config.root, block, pairs_file, images, stamps)

    def first_pairs(self, limit: int) -> list[tuple[str, str]]:
        """Source and target of some pairs of the first block."""
        for block in self.plan.blocks():
            rows = self.plan.read(block).slice(0, limit).to_pylist()
            return [(self.plan.images[row["source"]], self.plan.images[row["target"]]) for row in rows]
        return []

    def mean_file_size(self) -> float:
        """Mean size of an image file in bytes."""
        return float(self.plan.stamps[:, 0].mean())

    def read(self, image_id: str) -> bytes:
        """The bytes of an image's file."""
        return open_image_store(self.config.root, "collection").read(image_id)


@contextlib.contextmanager
def open_collection(
    name: str,
    config: CollectionConfig,
    bytes_per_image: int,
    scratch: Location | None = None,
    *,
    max_pairs_before: int | None = None,
    keep_together: bool = False,
) -> Iterator[Collection]:
    """Plans a collection; a list's plan lies on disk until the context ends, and in the scratch of a bucket.

    Args:
        bytes_per_image: memory that the features of one image take.
        scratch: where that plan goes, which actors on any machine read; None where only this process reads it.
        max_pairs_before: the `max_pairs` of the plan of an output that was begun before; it is kept if the
            configuration leaves `max_pairs` open, so that the output goes on with the same blocks.
        keep_together: even a small collection has large blocks, because images of a block help each other.

    Raises:
        InputError: no folder, no image in it, no pair, a list that cannot be read, or too little memory for a pair.
    """
    own = scratch.path if isinstance(scratch, FileLocation) else None
    if own is not None:
        own.mkdir(parents=True, exist_ok=True)
    with planned_pairs(
        config.root,
        config.select,
        max_images=images_within(config.feature_memory_mb * 10**6, bytes_per_image),
        max_pairs=config.max_pairs or max_pairs_before or (LARGEST_BLOCK if keep_together else None),
        scratch=own,
    ) as plan:
        yield Collection(name, config, plan, _pairs_file(plan, scratch))


def _pairs_file(plan: PlannedPairs, scratch: Location | None) -> Location | None:
    """Where actors read the pairs of a list; None where a rule chose them."""
    if plan.path is None or scratch is None or isinstance(scratch, FileLocation):
        return None if plan.path is None else location_of(plan.path)
    place = scratch / uuid.uuid4().hex / plan.path.name
    place.put_file(plan.path)
    return place
