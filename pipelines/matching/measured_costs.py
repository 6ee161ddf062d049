"""What matching costs here: a few of a collection's images and pairs are matched, timed, and written as tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from dhpf.model.engines.problem import MatchEngine
from dhpf.model.network import HyperpixelNetwork
from dhpf.pairs.image_folder import folder_pair
from dhpf.pipelines.inputs.block_job import OpenBlock
from dhpf.pipelines.matching.block_matching import MatchOptions, match_block
from dhpf.pipelines.matching.matched_pair import MatchedPair, RowMaker
from dhpf.pipelines.outputs.tables import table_of
from dhpf.pipelines.outputs.writers import table_file
from dhpf.pipelines.progress import CountedWork

NUM_IMAGES = 4
"""Images that are described and matched with each other, at most."""

LEAST_SECONDS = 1e-4


@dataclass(frozen=True)
class MeasuredCosts:
    """What one worker on this machine takes, and what it writes.

    Attributes:
        seconds_per_image: to read and describe an image.
        seconds_per_pair: to match a pair and make its row.
        bytes_per_block: of a table, whatever it holds.
        bytes_per_pair: of a row in it.
    """

    seconds_per_image: float
    seconds_per_pair: float
    bytes_per_block: float
    bytes_per_pair: float


@dataclass(frozen=True)
class _Trial:
    """A block of so many images and pairs: how long it took, and how large its table is."""

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
    """Matches two images, then all, each twice, and shows how far it is; the first time of each is not counted.

    Args:
        images: ids of two or more images; NUM_IMAGES of them are taken.
        read: gives the bytes of an image's file.
        rows, options: what is made of a pair, and how it is matched; one pair at a time.
    """
    blocks = [_block(images[:number], read) for number in (2, NUM_IMAGES)] * 2
    trials = []
    with CountedWork("measuring what a pair costs", "pair", sum(len(b.pairs) for b in blocks)) as work:
        for block in blocks:
            started = time.perf_counter()
            made = []
            for pair in match_block(network, engine, block, rows, replace(options, batch_size=1)):
                made.append(rows(pair) if isinstance(pair, MatchedPair) else rows.failed(pair))
                work.update(1)
            seconds = time.perf_counter() - started
            (content,) = table_file("part", table_of(made, rows.schema)).values()
            trials.append(_Trial(len(block.images), len(block.pairs), seconds, len(content)))
    return _costs(few=trials[2], many=trials[3])


def _block(images: Sequence[str], read: Callable[[str], bytes]) -> OpenBlock:
    records = [folder_pair(number, source, target) for number, (source, target) in enumerate(combinations(images, 2))]
    return OpenBlock(range(len(records)), records, read)


def _costs(few: _Trial, many: _Trial) -> MeasuredCosts:
    """Solves images * per image + pairs * per pair = seconds, and per block + pairs * per pair = bytes, of two trials.

    If both are of the same two images, the time is shared out evenly, and all bytes are the pair's.
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
