"""Blocks: a set of pairs and every image they touch, once. The unit of work, reading, failure and resumption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dhpf.errors import InputError
from dhpf.records import PairRecord


@dataclass(frozen=True)
class Block:
    """Some pairs and their images.

    Attributes:
        block_id: such as "block-000012"; unique in its set.
        images: ids of all images of the pairs, each once, in the order of first use.
        pairs: in the order of their source.
    """

    block_id: str
    images: tuple[str, ...]
    pairs: tuple[PairRecord, ...]


def plan_blocks(pairs: Iterable[PairRecord], *, max_pairs: int, max_images: int) -> Iterator[Block]:
    """Cuts a stream of pairs into blocks, in order; a block closes when the next pair would exceed a limit.

    The same pairs and limits give the same blocks; memory holds one block at a time.

    Raises:
        InputError: a limit that no pair can keep.
    """
    for name, limit, least in (("max_pairs", max_pairs, 1), ("max_images", max_images, 2)):
        if limit < least:
            raise InputError(f"{name}: {limit} must be at least {least}")
    number = 0
    current: list[PairRecord] = []
    images: dict[str, None] = {}
    for pair in pairs:
        grown = images | {pair.source: None, pair.target: None}
        if current and (len(current) == max_pairs or len(grown) > max_images):
            yield Block(f"block-{number:06d}", tuple(images), tuple(current))
            number, current, grown = number + 1, [], {pair.source: None, pair.target: None}
        current.append(pair)
        images = grown
    if current:
        yield Block(f"block-{number:06d}", tuple(images), tuple(current))
