"""Scores sets of layers by their PCK on pairs with keypoints.

Each image of a block is described once, with all layers of the backbone; only matching is repeated for each set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhpf.config import EngineName
from dhpf.errors import InputError
from dhpf.frame import Size, points_to_frame
from dhpf.metrics import framed_target, pck
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.engine import BestCells
from dhpf.model.features import ImageFeatures
from dhpf.model.transfer import cells_of_points, transfer
from dhpf.pipelines.cluster_metrics import CountedReads, Work, count_work, set_gpu_memory
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.block_source import OpenBlock
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.layer_search.beam import Layers
from dhpf.pipelines.matching.describing import describe_block
from dhpf.planning.blocks import Block
from dhpf.records import PairRecord, Points

PAIRS_AT_ONCE = 16
"""Pairs whose results are held in memory together, about 0.1 MB each."""


@dataclass(frozen=True)
class _FramedPair:
    """A pair's source and target keypoints, (K, 2) in the frame, and the length in pixels that alpha is a share of."""

    source: Points
    target: Points
    side: float


def scorable_pairs(shards: ShardSet) -> Iterator[PairRecord]:
    """The pairs of a shard set for which PCK by the set's main threshold is defined, in order."""
    for _, shard in shards.shards:
        for record in shard.pairs:
            source, target = shard.image_size(record.source), shard.image_size(record.target)
            if _framed(record, source, target, shards.thresholds[:1]) is not None:
                yield record


class SetScorer:
    """Scores sets of layers on blocks of pairs; keeps the features of the last block in memory.

    Args:
        model: untrained, with all layers selected.
        shards: the shard set that the pairs belong to.
        alpha: PCK threshold as a share of the set's main threshold side.
        resources: what the scorer may use.
        engine: which implementation matches.
    """

    def __init__(
        self, model: ModelSource, shards: ShardSet, alpha: float, resources: Resources, engine: EngineName
    ) -> None:
        self._network = model.load(resources)
        self._device = self._network.backbone.mean.device
        self._engine = choose_engine(engine, self._device)
        self._shards, self._alpha = shards, alpha
        self._opened: _OpenedBlock | None = None

    @torch.inference_mode()
    def score(self, block: Block, sets: Sequence[Layers]) -> NDArray[np.float64]:
        """PCK of each pair of a block with each set of layers.

        Args:
            block: two blocks with the same id must be the same, because features are kept by id.

        Returns:
            (len(sets), number of pairs) values in [0, 1].

        Raises:
            InputError: an image was damaged after the shard stage wrote it.
        """
        started = time.monotonic()
        reads = CountedReads(self._shards.read)
        is_opened = self._opened is not None and self._opened.block_id == block.block_id
        if not is_opened:
            self._opened = None  # two blocks' features together could exceed what there is room for
            self._opened = self._describe(block, reads)
        assert self._opened is not None
        scores = np.stack([self._score_set(self._opened, layers) for layers in sets])
        num_images, num_scores = len(self._opened.features), scores.size
        described, reused = (0, num_images) if is_opened else (num_images, 0)
        count_work("search", Work(num_scores, described, reused, reads.num_bytes, time.monotonic() - started))
        set_gpu_memory("search", self._device)
        return scores

    def _describe(self, block: Block, read: Callable[[str], bytes]) -> _OpenedBlock:
        opened = OpenBlock(range(len(block.pairs)), block.pairs, read)
        described = describe_block(self._network, opened)
        places, facts = described.places, described.facts
        failure = next((f.failure for f in facts.values() if f.failure), None)
        if failure is not None:
            raise InputError(f"shard set {self._shards.name}: {failure}; run again with --restart shard")
        framed = []
        for record in block.pairs:
            source, target = facts[record.source].size, facts[record.target].size
            pair = _framed(record, source, target, self._shards.thresholds[:1])
            assert pair is not None, "only scorable pairs are planned"
            framed.append(pair)
        numbers = [(places[p.source, p.mirrored], places[p.target, p.mirrored]) for p in block.pairs]
        wanted = torch.cat([cells_of_points(_batch_of_one(pair.source), _all_valid(pair.source)) for pair in framed])
        return _OpenedBlock(block.block_id, described.features, numbers, framed, wanted.to(self._device))

    def _score_set(self, opened: _OpenedBlock, layers: Layers) -> NDArray[np.float64]:
        gates = torch.zeros(len(opened.numbers), len(self._network.layers), device=self._device)
        gates[:, list(layers)] = 1
        features, values = opened.features, np.empty(len(opened.numbers))
        for begin in range(0, len(opened.numbers), PAIRS_AT_ONCE):
            batch = slice(begin, begin + PAIRS_AT_ONCE)
            found = self._network.match_selected(
                features, features, opened.numbers[batch], gates[batch], opened.wanted[batch], self._engine
            ).to("cpu")
            pairs = opened.framed[batch]
            values[batch] = [_pck(found[n], pair, self._alpha) for n, pair in enumerate(pairs)]
        return values


@dataclass(frozen=True)
class _OpenedBlock:
    """A described block, ready to be matched with any set of layers.

    Attributes:
        features: of its images.
        numbers: the places of each pair's source and target in the features.
        framed: the keypoints of each pair.
        wanted: (pairs, N) bool, the source cells whose match is needed.
    """

    block_id: str
    features: ImageFeatures
    numbers: Sequence[tuple[int, int]]
    framed: Sequence[_FramedPair]
    wanted: Tensor


def _framed(record: PairRecord, source: Size, target: Size, thresholds: tuple[str, ...]) -> _FramedPair | None:
    """A pair's keypoints in the frame; None for a pair whose PCK is not defined."""
    if record.source_keypoints is None or record.target_keypoints is None or not thresholds:
        return None
    if not len(record.target_keypoints):
        return None
    try:
        target_points, side = framed_target(
            record.target_keypoints, record.target_box, target, record.mirrored, thresholds[0]
        )
    except InputError:  # no box, or one keypoint alone, which has no extent
        return None
    return _FramedPair(points_to_frame(record.source_keypoints, source, record.mirrored), target_points, side)


def _pck(found: BestCells, pair: _FramedPair, alpha: float) -> float:
    moved = transfer(found, _batch_of_one(pair.source), _all_valid(pair.source))
    return float(pck(moved.points[0].numpy(), pair.target, moved.valid[0].numpy(), pair.side, (alpha,))[0])


def _batch_of_one(points: Points) -> Tensor:
    """(1, K, 2) points of one pair."""
    return torch.from_numpy(points)[None]


def _all_valid(points: Points) -> Tensor:
    """(1, K) bool: all points of one pair are valid."""
    return torch.ones(1, len(points), dtype=torch.bool)
