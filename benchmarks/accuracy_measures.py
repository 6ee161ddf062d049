"""PCK of a network on the pairs of a shard set, which are matched alone or jointly, by every threshold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dhpf.config import ReadoutName
from dhpf.errors import InputError
from dhpf.frame import points_to_frame
from dhpf.metrics import THRESHOLDS, framed_target, pck
from dhpf.model.engines.choose import choose_engine
from dhpf.model.features import ImageFeatures
from dhpf.model.joint import JointMatching
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.transfer import TransferredPoints, cells_of_points, transfer, transfer_by_agreement, transfer_by_cells
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.training.frozen_maps import FrozenMaps, TrainingImage
from dhpf.pipelines.training.pair_dataset import PairDataset
from dhpf.records import Points

ALPHAS = (0.05, 0.1, 0.15)
NUM_INTERMEDIATES = 8
"""Other images through which a pair is matched jointly, at most."""

KEPT_MAPS = 10_000_000_000
"""Bytes of backbone maps that a test set may keep on disk."""

Percent = dict[str, dict[str, float]]
"""PCK in percent by the name of a threshold and by alpha."""


@dataclass(frozen=True)
class TestedPair:
    """A pair, ready to be matched and scored.

    Attributes:
        places: of its source and its target among the described images.
        source: (K, 2) keypoints in the frame.
        targets: by the name of a threshold, the target's keypoints in the frame and the side that alpha is a share of;
            thresholds that the pair does not have are left out.
    """

    places: tuple[int, int]
    source: Tensor
    targets: dict[str, tuple[Points, float]]

    def score(self, moved: TransferredPoints) -> dict[str, np.ndarray]:
        """The pair's PCK by the name of a threshold, at each of ALPHAS."""
        points, valid = moved.points[0].numpy(), moved.valid[0].numpy()
        return {name: pck(points, true, valid, side, ALPHAS) for name, (true, side) in self.targets.items()}


@dataclass(frozen=True)
class Outcome:
    """What a network reaches on a test set: PCK, CPU milliseconds to match a pair of described images, its layers."""

    pck: Percent
    milliseconds: float
    layers: float


class TestSet:
    """The pairs of a shard set that have keypoints, and their images.

    Args:
        maps: folder that keeps the backbone's maps.
    """

    def __init__(self, shards: ShardSet, maps: Path) -> None:
        self._maps = maps
        self._images: dict[str, TrainingImage] = {}
        self._kinds: dict[str, str] = {}
        self._pairs = list(self._read(shards))

    def _read(self, shards: ShardSet) -> Iterator[TestedPair]:
        data = PairDataset(shards)
        sizes = {name: shard.image_size(name) for _, shard in shards.shards for name in shard.image_ids}
        for number in range(len(data)):
            record = data.record(number)
            for image in (data.source(number), data.target(number)):
                self._images.setdefault(image.image_id, image)
                self._kinds[image.image_id] = record.category
            if record.source_keypoints is None or record.target_keypoints is None:
                continue
            order = list(self._images)
            places = order.index(record.source), order.index(record.target)
            source = torch.from_numpy(points_to_frame(record.source_keypoints, sizes[record.source]))
            targets = {}
            for name in THRESHOLDS:
                try:
                    box, size = record.target_box, sizes[record.target]
                    targets[name] = framed_target(record.target_keypoints, box, size, False, name)
                except InputError:  # no box, or keypoints without extent
                    continue
            yield TestedPair(places, source, targets)

    def _described(self, network: HyperpixelNetwork) -> ImageFeatures:
        layers = "-".join(map(str, network.layers))
        maps = FrozenMaps(network, self._maps / f"{network.config.image_side}-{layers}", KEPT_MAPS)
        return ImageFeatures.concatenate([network.embed(maps.of([image])) for image in self._images.values()])

    @torch.inference_mode()
    def alone(self, network: HyperpixelNetwork) -> Outcome:
        """Each pair matched by itself."""
        features, engine, layers = self._described(network), choose_engine("auto"), 0.0
        moved, started = [], time.process_time()
        for pair in self._pairs:
            points, valid = _one(pair)
            wanted = cells_of_points(points, valid)
            found, selection = network.match(features, features, [pair.places], wanted, engine)
            moved.append(transfer(found, points, valid))
            layers += float(selection.sum()) / len(self._pairs)
        return Outcome(self._score(moved), self._milliseconds(started), layers)

    @torch.inference_mode()
    def jointly(self, network: HyperpixelNetwork) -> dict[ReadoutName, Outcome]:
        """Each pair matched through others of its kind, by both ways to read a point out.

        The two differ only in what is done with a pair's joint matches, hence the time is that of both.
        """
        features, kinds = self._described(network), [self._kinds[name] for name in self._images]
        moved: dict[ReadoutName, list[TransferredPoints]] = {"cell": [], "soft": []}
        started = time.process_time()
        joint = JointMatching(network, features, kinds, NUM_INTERMEDIATES, network.config.joint_side)
        for pair in self._pairs:
            found = joint.match(*pair.places)
            one = found.points[None], found.agreement[None], *_one(pair)
            moved["cell"].append(transfer_by_cells(*one))
            moved["soft"].append(transfer_by_agreement(*one))
        time_of_pair, layers = self._milliseconds(started), float(len(network.layers))
        return {readout: Outcome(self._score(points), time_of_pair, layers) for readout, points in moved.items()}

    def _milliseconds(self, started: float) -> float:
        return round(1000 * (time.process_time() - started) / len(self._pairs), 1)

    def _score(self, moved: list[TransferredPoints]) -> Percent:
        of_pairs = [pair.score(points) for pair, points in zip(self._pairs, moved, strict=True)]
        means: Percent = {}
        for name in THRESHOLDS:
            values = [scores[name] for scores in of_pairs if name in scores]
            if values:
                mean = 100 * np.mean(values, axis=0)
                means[name] = {f"{alpha:g}": round(float(share), 2) for alpha, share in zip(ALPHAS, mean, strict=True)}
        return means


def _one(pair: TestedPair) -> tuple[Tensor, Tensor]:
    """(1, K, 2) source points of a pair, and (1, K) that all are valid."""
    return pair.source[None], torch.ones(1, len(pair.source), dtype=torch.bool)
