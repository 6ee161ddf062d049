"""Protocol of what can be matched block by block: a shard set or a collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dhpf.pipelines.inputs.block_job import BlockJob


@dataclass(frozen=True)
class RejectedRows:
    """The rows of a pair list that cannot be used.

    Attributes:
        table: Parquet file of them, dhpf.pairs.pair_list.REJECTS.
        num_rows: how many they are.
        first_reason: why the first of them is one; None where there is none.
    """

    table: Path
    num_rows: int
    first_reason: str | None


class BlockSource(Protocol):
    """Pairs in blocks, and their images."""

    @property
    def name(self) -> str:
        """What outputs, tables and metrics call it."""

    @property
    def digest(self) -> str:
        """sha256 that identifies the pairs and, as far as they are at hand, the images."""

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
