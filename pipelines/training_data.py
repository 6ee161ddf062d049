"""What a training worker reads: pairs at any place of a shard set, as batches in one global order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dhpf.data.preprocessing import box_to_frame, points_to_frame, to_square
from dhpf.images import decode_image
from dhpf.metrics import threshold_side
from dhpf.records import PairRecord, Points
from dhpf.supervision import KeypointBatch
from pipelines.shard_set import ShardSet

MAX_CACHED_IMAGES = 4096
"""Decoded squares that a worker keeps: about 0.2 MB each at 240 pixels."""


@dataclass(frozen=True)
class PairBatch:
    """B pairs as tensors.

    Attributes:
        numbers: running numbers of the pairs in their shard set.
        source, target: (B, 3, side, side) uint8.
        keypoints: in the frame; None when a pair has none.
    """

    numbers: tuple[int, ...]
    records: tuple[PairRecord, ...]
    source: Tensor
    target: Tensor
    keypoints: KeypointBatch | None


class PairDataset:
    """Pairs of a shard set by running number; images are decoded once and kept.

    Args:
        side: of the square images, in pixels.
    """

    def __init__(self, shards: ShardSet, side: int) -> None:
        self._places = [(shard, n) for _, shard in shards.shards for n in range(len(shard))]
        self._side = side
        self._threshold = shards.thresholds[0] if shards.thresholds else None
        self._squares: dict[tuple[str, bool], Tensor] = {}

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, numbers: Sequence[int]) -> PairBatch:
        """The pairs with these running numbers."""
        records = [self._places[n][0].pairs[self._places[n][1]] for n in numbers]
        return PairBatch(
            numbers=tuple(numbers),
            records=tuple(records),
            source=torch.stack([self._square(n, r.source, r.mirrored) for n, r in zip(numbers, records, strict=True)]),
            target=torch.stack([self._square(n, r.target, r.mirrored) for n, r in zip(numbers, records, strict=True)]),
            keypoints=self._keypoints(numbers, records),
        )

    def _square(self, number: int, image_id: str, mirrored: bool) -> Tensor:
        square = self._squares.get((image_id, mirrored))
        if square is None:
            data = self._places[number][0].image_bytes(image_id)
            square = to_square(decode_image(data, image_id), self._side, mirrored)
            if len(self._squares) == MAX_CACHED_IMAGES:
                self._squares.pop(next(iter(self._squares)))
            self._squares[image_id, mirrored] = square
        return square

    def _keypoints(self, numbers: Sequence[int], records: Sequence[PairRecord]) -> KeypointBatch | None:
        if self._threshold is None or any(not _has_keypoints(r) for r in records):
            return None
        most = max(len(r.source_keypoints) for r in records if r.source_keypoints is not None)
        source, target = (np.zeros((len(records), most, 2), dtype=np.float32) for _ in range(2))
        valid = np.zeros((len(records), most), dtype=bool)
        sides = np.zeros(len(records), dtype=np.float32)
        for row, (number, record) in enumerate(zip(numbers, records, strict=True)):
            shard = self._places[number][0]
            target_size = shard.image_size(record.target)
            assert record.source_keypoints is not None and record.target_keypoints is not None
            count = len(record.source_keypoints)
            source[row, :count] = _framed(record.source_keypoints, shard.image_size(record.source), record)
            target[row, :count] = _framed(record.target_keypoints, target_size, record)
            valid[row, :count] = True
            box = None if record.target_box is None else box_to_frame(record.target_box, target_size)
            sides[row] = threshold_side(self._threshold, target[row, :count], box)
        return KeypointBatch(*(torch.from_numpy(a) for a in (source, target, valid, sides)))


def _has_keypoints(record: PairRecord) -> bool:
    return record.target_keypoints is not None and len(record.target_keypoints) > 0


def _framed(points: Points, size: tuple[int, int], record: PairRecord) -> Points:
    return points_to_frame(points, size, record.mirrored)


def epoch_batches(num_pairs: int, batch_size: int, seed: int, epoch: int, num_workers: int) -> list[list[list[int]]]:
    """Every pair once, in an order that depends on seed and epoch alone: [step][worker] -> running numbers.

    A worker needs two pairs to normalise its batch, so a last step that is too small joins the one before.
    """
    order = np.random.default_rng((seed, epoch)).permutation(num_pairs)
    steps = [order[begin : begin + batch_size] for begin in range(0, num_pairs, batch_size)]
    if len(steps) > 1 and len(steps[-1]) < 2 * num_workers:
        steps[-2:] = [np.concatenate(steps[-2:])]
    return [[part.tolist() for part in np.array_split(step, num_workers)] for step in steps]


def gumbel_uniforms(numbers: Sequence[int], num_layers: int, seed: int, epoch: int) -> Tensor:
    """(B, L, 2) draws for the gates' noise: a function of seed, epoch and pair, whichever worker has the pair."""
    draws = [np.random.default_rng((seed, epoch, number)).random((num_layers, 2)) for number in numbers]
    return torch.from_numpy(np.stack(draws)).float()
