"""The data of a training worker: images and keypoints of pairs, the steps of an epoch, and its share of each step."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dhpf.frame import points_to_frame
from dhpf.metrics import framed_target
from dhpf.model.global_batch import TrainingPairs
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.training.frozen_maps import TrainingImage
from dhpf.records import PairRecord
from dhpf.supervision import KeypointBatch, negative_pairs


class PairDataset:
    """Pairs of a shard set by running number."""

    def __init__(self, shards: ShardSet) -> None:
        self._places = [(shard, n) for _, shard in shards.shards for n in range(len(shard))]
        self._threshold = shards.thresholds[0] if shards.thresholds else None

    def __len__(self) -> int:
        return len(self._places)

    def record(self, number: int) -> PairRecord:
        """The pair."""
        shard, place = self._places[number]
        return shard.pairs[place]

    def source(self, number: int) -> TrainingImage:
        """The source image of a pair."""
        return self._image(number, self.record(number).source)

    def target(self, number: int) -> TrainingImage:
        """The target image of a pair."""
        return self._image(number, self.record(number).target)

    def _image(self, number: int, image_id: str) -> TrainingImage:
        shard = self._places[number][0]
        digest, mirrored = shard.image_digest(image_id), self.record(number).mirrored
        return TrainingImage(image_id, digest, mirrored, functools.partial(shard.image_bytes, image_id))

    def keypoints(self, numbers: Sequence[int]) -> KeypointBatch | None:
        """The keypoints of these pairs, in the frame; None if a pair has none."""
        records = [self.record(n) for n in numbers]
        if self._threshold is None or any(not _has_keypoints(r) for r in records):
            return None
        most = max(len(r.source_keypoints) for r in records if r.source_keypoints is not None)
        source, target = (np.zeros((len(records), most, 2), dtype=np.float32) for _ in range(2))
        valid = np.zeros((len(records), most), dtype=bool)
        sides = np.zeros(len(records), dtype=np.float32)
        for row, (number, record) in enumerate(zip(numbers, records, strict=True)):
            shard = self._places[number][0]
            assert record.source_keypoints is not None and record.target_keypoints is not None
            count = len(record.source_keypoints)
            source_size = shard.image_size(record.source)
            source[row, :count] = points_to_frame(record.source_keypoints, source_size, record.mirrored)
            target[row, :count], sides[row] = framed_target(
                record.target_keypoints,
                record.target_box,
                shard.image_size(record.target),
                record.mirrored,
                self._threshold,
            )
            valid[row, :count] = True
        return KeypointBatch(*(torch.from_numpy(a) for a in (source, target, valid, sides)))


def _has_keypoints(record: PairRecord) -> bool:
    return record.target_keypoints is not None and len(record.target_keypoints) > 0


def epoch_steps(num_pairs: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The running numbers of the pairs of each step: every pair once, in an order that depends on seed and epoch alone.

    Batch normalisation needs two pairs, so that a last step of a single pair is joined to the step before it.
    """
    order = np.random.default_rng((seed, epoch)).permutation(num_pairs).tolist()
    steps = [order[begin : begin + batch_size] for begin in range(0, num_pairs, batch_size)]
    if len(steps) > 1 and len(steps[-1]) < 2:
        steps[-2:] = [steps[-2] + steps[-1]]
    return steps


@dataclass(frozen=True)
class StepShare:
    """The pairs of a step that one worker takes.

    Attributes:
        sources: running numbers of the pairs whose source images it takes: its positive pairs.
        targets: running numbers of the pairs whose target images it takes: its positive pairs, and those whose target
            a negative pair needs besides.
        pairs: which source goes with which target.
        noise: the number from which each pair's noise is drawn; that of a negative pair is above all positive pairs'.
    """

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    pairs: TrainingPairs
    noise: tuple[int, ...]


def share_of_step(
    step: Sequence[int], categories: Sequence[str] | None, num_pairs: int, rank: int, num_workers: int
) -> StepShare:
    """The share of worker `rank`; a worker for whom no pair is left takes the first pair with weight 0.

    Args:
        categories: of the step's pairs, from which negative pairs are made over the whole step; None makes none.
        num_pairs: of the whole set.
    """
    own = np.array_split(np.arange(len(step)), num_workers)[rank].tolist()
    weight = 1.0 if own else 0.0
    own = own or [0]
    negatives = [(s, t) for s, t in negative_pairs(categories or []) if s in own and weight]
    positions = [*own, *sorted({t for _, t in negatives} - set(own))]
    sources = [*range(len(own)), *(own.index(s) for s, _ in negatives)]
    targets = [*range(len(own)), *(positions.index(t) for _, t in negatives)]
    return StepShare(
        sources=tuple(step[p] for p in own),
        targets=tuple(step[p] for p in positions),
        pairs=TrainingPairs(
            torch.tensor(sources), torch.tensor(targets), len(own), torch.full((len(sources),), weight)
        ),
        noise=(*(step[p] for p in own), *(step[s] + num_pairs for s, _ in negatives)),
    )


def gumbel_uniforms(numbers: Sequence[int], num_layers: int, seed: int, epoch: int) -> Tensor:
    """(B, L, 2) uniform draws for the gates' noise: a function of seed, epoch and pair, the same in any worker."""
    draws = [np.random.default_rng((seed, epoch, number)).random((num_layers, 2)) for number in numbers]
    return torch.from_numpy(np.stack(draws)).float()
