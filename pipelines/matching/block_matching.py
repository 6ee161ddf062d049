"""Matching a block: each of its images is described once, then every pair is matched."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dhpf.frame import Size, lies_outside, points_to_frame
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.geometry import NUM_CELLS
from dhpf.model.joint import JointMatching
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.transfer import cells_of_points
from dhpf.pipelines.config import FeatureType
from dhpf.pipelines.inputs.block_job import OpenBlock
from dhpf.pipelines.matching.caution import NO_CAUTION, Caution
from dhpf.pipelines.matching.describing import ImageFacts, describe_block
from dhpf.pipelines.matching.matched_pair import MatchedPair, RowMaker, common_row
from dhpf.records import PairRecord

MATCH_BATCH = {"cpu": 4, "cuda": 64}
"""Pairs that are matched together. A GPU needs half of the time per pair for 64 that it needs for 4."""


@torch.inference_mode()
def match_block(
    network: HyperpixelNetwork,
    engine: MatchEngine,
    block: OpenBlock,
    batch_size: int | None,
    rows: RowMaker,
    feature_type: FeatureType = "float32",
    caution: Caution = NO_CAUTION,
    intermediates: int = 0,
) -> Iterator[MatchedPair | Mapping[str, Any]]:
    """Matches every pair of a block, each image described once; a pair that cannot be matched gives its row at once.

    Args:
        batch_size: pairs that are matched together; None for what suits the network's device.
        rows: says which points will be transferred.
        feature_type: how the features are kept.
        intermediates: at most so many images of the block, of the pair's category, through which it is matched too.
    """
    started = time.perf_counter()
    described = describe_block(network, block, feature_type, caution)
    places, features, facts = described.places, described.features, described.facts
    describe_share = (time.perf_counter() - started) / max(1, len(block.pairs))
    usable = []
    for place, (number, record) in enumerate(zip(block.numbers, block.pairs, strict=True)):
        source, target = facts[record.source], facts[record.target]
        failure = source.failure or target.failure or caution.pairs.get(place) or _misplaced(record, source)
        if failure:
            yield common_row(number, record, source, target) | {"status": failure}
        else:
            usable.append((place, number, record))
    joint = None
    if intermediates:
        joint = JointMatching(network, features, [block.kinds[image] for image in places], intermediates)
    batch_size = 1 if caution.is_stepwise else batch_size or MATCH_BATCH[features.squared_norms.device.type]
    for begin in range(0, len(usable), batch_size):
        batch = usable[begin : begin + batch_size]
        caution.step(len(block.images) + batch[0][0])
        started = time.perf_counter()
        pairs = [(places[r.source, r.mirrored], places[r.target, r.mirrored]) for _, _, r in batch]
        wanted = torch.stack([_wanted_cells(rows, r, facts[r.source].size) for _, _, r in batch])
        found, selection = network.match(features, features, pairs, wanted.to(features.squared_norms.device), engine)
        found = found.to("cpu")
        jointly = [None if joint is None else joint.match(*pair).to("cpu") for pair in pairs]
        seconds = describe_share + (time.perf_counter() - started) / len(batch)
        for offset, (_, number, record) in enumerate(batch):
            layers = tuple(selection[offset].nonzero().flatten().tolist())
            source, target = facts[record.source], facts[record.target]
            yield MatchedPair(number, record, source, target, found[offset], layers, seconds, jointly[offset])


def _misplaced(record: PairRecord, source: ImageFacts) -> str | None:
    if record.source_keypoints is None:
        return None
    reason = lies_outside(record.source_keypoints, source.size, record.source)
    return reason and f"source_points: {reason}"


def _wanted_cells(rows: RowMaker, record: PairRecord, size: Size) -> Tensor:
    """(N,) bool, the source cells whose match a row needs."""
    points = rows.wanted_points(record)
    if points is None:
        return torch.ones(NUM_CELLS, dtype=torch.bool)
    if not points:
        return torch.zeros(NUM_CELLS, dtype=torch.bool)
    framed = torch.from_numpy(points_to_frame(np.concatenate(points), size, record.mirrored))[None]
    return cells_of_points(framed, torch.ones(framed.shape[:2], dtype=torch.bool))[0]
