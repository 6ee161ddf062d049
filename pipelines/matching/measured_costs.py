"""Measures on this machine what matching costs, by matching a few of a collection's images and timing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from dhpf.model.engines.engine import MatchEngine
from dhpf.model.network import HyperpixelNetwork
from dhpf.pairs.source import folder_pair
from dhpf.pipelines.inputs.block_source import OpenBlock
from dhpf.pipelines.matching.block_matching import MatchOptions, match_block
from dhpf.pipelines.matching.matched_pair import RowMaker, table_row
from dhpf.pipelines.outputs.tables import table_of
from dhpf.pipelines.outputs.writers import PART, table_file
from dhpf.pipelines.progress import CountedWork

NUM_IMAGES = 4
"""At most this many images are described, and all their pairs are matched."""

LEAST_SECONDS = 1e-4
"""Lower bound of a measured time, which noise could make negative."""


@dataclass(frozen=True)
class MeasuredCosts:
    """The time that one worker takes on this machine, and the size of what it writes.

    Attributes:
        seconds_per_image: to read and describe an image.
        seconds_per_pair: to match a pair and make its row.
        bytes_per_block: of a block's table besides its rows.
        bytes_per_pair: of a row.
    """

    seconds_per_image: float
    seconds_per_pair: float
    bytes_per_block: float
    bytes_per_pair: float


@dataclass(frozen=True)
class _Trial:
    """The time that matching one block took, and the size of its table."""

    num_images: int
    num_pairs: int
    seconds: float
    num_bytes: int


def measure_costs(
    network: HyperpixelNetwork,
    engine: MatchEngine,
    images: Sequence[str],
    read: Callable[[str], bytes],
    rows: RowMaker,
    options: MatchOptions,
) -> MeasuredCosts:
    """Times a block of two images and a block of all of them, each twice; the first time of each is a warm-up.

    Args:
        images: ids of two or more images; at most NUM_IMAGES of them are taken.
        read: gives the bytes of an image's file.
        rows: makes the row of a pair.
        options: how pairs are matched; the batch size is always 1.
    """
    blocks = [_block(images[:number], read) for number in (2, NUM_IMAGES)] * 2
    trials = []
    with CountedWork("measuring what a pair costs", "pair", sum(len(b.pairs) for b in blocks)) as work:
        for block in blocks:
            started = time.perf_counter()
            made = []
            for pair in match_block(network, engine, block, rows, replace(options, batch_size=1)):
                made.append(table_row(rows, pair))
                work.update(1)
            seconds = time.perf_counter() - started
            (content,) = table_file(PART, table_of(made, rows.schema)).values()
            trials.append(_Trial(len(block.images), len(block.pairs), seconds, len(content)))
    return _costs(few=trials[2], many=trials[3])


def _block(images: Sequence[str], read: Callable[[str], bytes]) -> OpenBlock:
    records = [folder_pair(number, source, target) for number, (source, target) in enumerate(combinations(images, 2))]
    return OpenBlock(range(len(records)), records, read)


def _costs(few: _Trial, many: _Trial) -> MeasuredCosts:
    """Solves `images * per image + pairs * per pair = seconds` and `per block + pairs * per pair = bytes`.

    If both trials have the same two images, the time is divided evenly, and all bytes count as the pair's.
    """
    if many.num_pairs == few.num_pairs:
        even = few.seconds / (few.num_images + few.num_pairs)
        return MeasuredCosts(even, even, 0, few.num_bytes / few.num_pairs)
    per_pair = max(
        (many.seconds * few.num_images - few.seconds * many.num_images)
        / (many.num_pairs * few.num_images - few.num_pairs * many.num_images),
        LEAST_SECONDS,
    )
    per_image = max((few.seconds - few.num_pairs * per_pair) / few.num_images, LEAST_SECONDS)
    row_bytes = max((many.num_bytes - few.num_bytes) / (many.num_pairs - few.num_pairs), 0)
    return MeasuredCosts(per_image, per_pair, max(few.num_bytes - few.num_pairs * row_bytes, 0), row_bytes)
