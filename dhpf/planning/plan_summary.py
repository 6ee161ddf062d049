"""Counts what a plan of blocks reads, compares it with the least possible, and estimates time and price."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.planning.blocks import PlannedBlock, require_limits
from dhpf.planning.spans import Range, Span


@dataclass(frozen=True)
class PlanSummary:
    """Counts of a plan.

    Attributes:
        num_blocks, num_pairs: of the plan.
        num_images: images read and described: each block's, summed.
        num_shared: how many of these are also in the block before theirs.
        ideal_images: no plan with these limits reads fewer (`fewest_images`).
    """

    num_blocks: int
    num_pairs: int
    num_images: int
    num_shared: int
    ideal_images: int

    @property
    def described_per_pair(self) -> float:
        return self.num_images / max(self.num_pairs, 1)

    @property
    def ideal_described_per_pair(self) -> float:
        return self.ideal_images / max(self.num_pairs, 1)

    def __str__(self) -> str:
        return (
            f"{counted(self.num_blocks, 'block')}, {counted(self.num_pairs, 'pair')}, "
            f"{counted(self.num_images, 'image')} to read "
            f"({self.num_shared:,} of them are in the block before as well)\n"
            f"{self.described_per_pair:.4g} images described per pair; no plan with these limits needs fewer than "
            f"{self.ideal_described_per_pair:.4g}"
        )


def summarise(
    blocks: Iterable[PlannedBlock], degrees: NDArray[np.int64], *, max_images: int, max_pairs: int
) -> PlanSummary:
    """The summary of a plan; blocks may stream by.

    Args:
        degrees: (num_images,) how many different images each image of the collection is paired with.
    """
    num_blocks = num_pairs = num_images = num_shared = 0
    for block in blocks:
        num_blocks += 1
        num_pairs += block.num_pairs
        num_images += block.num_images
        num_shared += block.num_shared
    ideal = fewest_images(degrees, max_images=max_images, max_pairs=max_pairs)
    return PlanSummary(num_blocks, num_pairs, num_images, num_shared, ideal)


def fewest_images(degrees: NDArray[np.int64], *, max_images: int, max_pairs: int) -> int:
    """A lower bound: no plan's blocks read fewer images together, if each block reads all of its own.

    It is the larger of two bounds. One is by image: a block has at most max_images - 1 partners for an image, so an
    image with d partners is in at least d / (max_images - 1) blocks. The other is by block: a block of m images has at
    most m(m - 1)/2 pairs, so a full block has the fewest images per pair. For all pairs of a large collection both come
    to 2 / (max_images - 1) images described per pair; only for few numbers of images there is a plan that attains it (a
    Steiner system).

    Args:
        degrees: (num_images,) how many different images each image is paired with.
    """
    require_limits(max_images, max_pairs)
    by_image = int(-(-degrees // (max_images - 1)).sum())
    full = min(max_pairs, max_images * (max_images - 1) // 2)
    by_block = int(degrees.sum()) / 2 / full * (1 + math.sqrt(1 + 8 * full)) / 2
    return max(by_image, math.ceil(by_block - 1e-6))


def num_degrees(spans: Iterable[Span], num_images: int) -> NDArray[np.int64]:
    """(num_images,) how many pairs of the spans each position is in."""
    degrees = np.zeros(num_images, dtype=np.int64)
    for span in spans:
        sources, targets = span.ranges
        degrees[slice(*sources)] += _num_partners(sources, targets, (1, span.reach) if span.reach else None)
        degrees[slice(*targets)] += _num_partners(targets, sources, (-span.reach, -1) if span.reach else None)
    return degrees


def _num_partners(positions: Range, partners: Range, steps: tuple[int, int] | None) -> NDArray[np.int64] | int:
    """For each position the number of partners from steps[0] to steps[1] away; without steps, all of them."""
    if steps is None:
        return partners[1] - partners[0]
    each = np.arange(*positions, dtype=np.int64)
    return np.minimum(each + steps[1] + 1, partners[1]) - np.maximum(each + steps[0], partners[0])


@dataclass(frozen=True)
class Estimate:
    """What a plan will take.

    Attributes:
        hours: from start to end, all actors at work.
        actor_hours: over all actors together.
        bytes_read: of image files.
        bytes_written: of result tables.
        price: actor_hours at the given price; None where none was given.
    """

    hours: float
    actor_hours: float
    bytes_read: int
    bytes_written: int
    price: float | None

    def __str__(self) -> str:
        return (
            f"about {_duration(self.hours)}, {self.actor_hours:,.1f} actor hours, "
            f"{_size(self.bytes_read)} of images to read, {_size(self.bytes_written)} of results"
            + ("" if self.price is None else f", price {self.price:,.2f}")
        )


def estimate(
    summary: PlanSummary,
    *,
    seconds_per_image: float,
    seconds_per_pair: float,
    bytes_per_image_file: float,
    bytes_per_block: float = 0.0,
    bytes_per_pair: float = 0.0,
    num_actors: int = 1,
    price_per_hour: float = 0.0,
) -> Estimate:
    """What a plan will take if every block reads all of its images.

    Args:
        seconds_per_image: to read and describe an image, on one actor.
        seconds_per_pair: to match a pair, on one actor.
        bytes_per_image_file: mean size of the image files.
        bytes_per_block, bytes_per_pair: size of a block's result table, and of each row in it.
        price_per_hour: of one actor, in any currency; 0 if it is not known.

    Raises:
        InputError: a number that is negative or not finite, or no actor.
    """
    for name, value in (
        ("seconds_per_image", seconds_per_image),
        ("seconds_per_pair", seconds_per_pair),
        ("bytes_per_image_file", bytes_per_image_file),
        ("bytes_per_block", bytes_per_block),
        ("bytes_per_pair", bytes_per_pair),
        ("price_per_hour", price_per_hour),
    ):
        if not 0 <= value < math.inf:
            raise InputError(f"{name}: {value} must be a number of at least 0")
    if num_actors < 1:
        raise InputError(f"num_actors: {num_actors} must be at least 1")
    actor_hours = (summary.num_images * seconds_per_image + summary.num_pairs * seconds_per_pair) / 3600
    # A block is not shared between actors: with few blocks, the rest of them wait.
    rounds = -(-summary.num_blocks // num_actors)
    hours = actor_hours / max(summary.num_blocks, 1) * rounds
    return Estimate(
        hours=hours,
        actor_hours=actor_hours,
        bytes_read=round(summary.num_images * bytes_per_image_file),
        bytes_written=round(summary.num_blocks * bytes_per_block + summary.num_pairs * bytes_per_pair),
        price=actor_hours * price_per_hour if price_per_hour else None,
    )


def counted(number: int, noun: str) -> str:
    """A number of things, such as "1 block" or "1,234 blocks"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _duration(hours: float) -> str:
    for unit, length in (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60)):
        if hours >= 2 * length or unit == "minutes":
            return f"{hours / length:,.1f} {unit}"
    raise AssertionError(hours)


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
