"""A collection: a user's folder of images and which pairs of them to match, planned in blocks without being listed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dhpf.data.blocks import PlannedBlock, images_within, plan_spans
from dhpf.data.plan_summary import PlanSummary, summarise
from dhpf.data.spans import merged
from dhpf.errors import InputError
from dhpf.pairs.image_folder import list_images
from dhpf.pairs.selection import Selection, select
from dhpf.pairs.source import read_inside, require_folder
from pipelines.config import CollectionConfig


@dataclass(frozen=True)
class Collection:
    """What is to be matched, as the match stage reads it.

    Attributes:
        name: as the workflow calls it.
        bytes_per_image: memory that the features of one image take.
    """

    name: str
    config: CollectionConfig
    bytes_per_image: int

    @cached_property
    def selection(self) -> Selection:
        """The images, by position, and their pairs.

        Raises:
            InputError: no folder, no image in it, or a selection that it does not have.
        """
        images = list_images(require_folder(self.config.root, f"collection {self.name}"))
        if not images:
            raise InputError(f"collection {self.name}: no image in {self.config.root!r}")
        config = self.config
        found = select(images, config.select, reference=config.reference, reach=config.reach)
        if not found.num_pairs:
            raise InputError(f"collection {self.name}: {len(images)} images, but no pair with select {config.select!r}")
        return found

    @property
    def num_pairs(self) -> int:
        return self.selection.num_pairs

    @cached_property
    def max_images(self) -> int:
        """Images of a block: what the memory for features holds."""
        return images_within(self.config.feature_memory_mb * 10**6, self.bytes_per_image)

    @cached_property
    def blocks(self) -> tuple[PlannedBlock, ...]:
        """The plan."""
        spans = self.selection.spans
        return tuple(plan_spans(spans, max_images=self.max_images, max_pairs=self.config.max_pairs))

    @property
    def tasks(self) -> list[str]:
        """Names of the blocks, in order."""
        return [block.block_id for block in self.blocks]

    @property
    def digest(self) -> str:
        """sha256 over the image ids; the content of each image is in every row."""
        return hashlib.sha256("\n".join(self.selection.images).encode("utf-8", "surrogateescape")).hexdigest()

    def summary(self) -> PlanSummary:
        """What the plan comes to."""
        return summarise(
            self.blocks, self.selection.degrees(), max_images=self.max_images, max_pairs=self.config.max_pairs
        )

    def jobs(self, missing: set[str]) -> Iterator[dict[str, Any]]:
        """What an actor needs to know of each block in `missing`: its images by name, its pairs in closed form."""
        for block in self.blocks:
            if block.block_id in missing:
                ranges = merged(r for span in block.spans for r in span.ranges)
                images = [[begin, self.selection.images[begin:end]] for begin, end in ranges]
                job = {"root": self.config.root, "block": block.to_json(), "images": images}
                yield {"task": block.block_id, "job": job, "num_pairs": block.num_pairs}

    def mean_file_size(self) -> float:
        """Mean size of the image files in bytes, of a hundred of them."""
        images = self.selection.images
        sample = images[:: max(1, len(images) // 100)]
        return sum((Path(self.config.root) / image).stat().st_size for image in sample) / len(sample)

    def read(self, image_id: str) -> bytes:
        """The encoded image."""
        return read_inside(self.config.root, image_id)
