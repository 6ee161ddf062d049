"""Matching a block: each of its images is described once, then every pair is matched."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhpf.frame import Size, lies_outside, points_from_frame, points_to_frame, to_square
from dhpf.images import ImageError, decode_image, printable, require_text
from dhpf.model.best_cells import BestCells
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.geometry import NUM_CELLS
from dhpf.model.joint import JointMatches, JointMatching
from dhpf.model.network import HyperpixelNetwork, ImageFeatures
from dhpf.model.transfer import cells_of_points, dense_flow, mutual_matches, transfer, transfer_jointly
from dhpf.pairs.image_folder import folder_pair
from dhpf.pairs.image_store import open_image_store
from dhpf.pairs.pair_list import pair_id_of
from dhpf.pipelines.config import FeatureType
from dhpf.pipelines.inputs.planned_pairs import pairs_of
from dhpf.pipelines.outputs.tables import MATCHED, layer_mask
from dhpf.planning.blocks import planned_block_from_json
from dhpf.records import PairRecord, Points
from dhpf.shards.shards import Shard

DECODED_AHEAD = 4
"""Images that are decoded, or wait for it, while the network looks at one."""

DESCRIBE_BATCH = {"cpu": 1, "cuda": 8}
"""Images that pass through the backbone together. On a CPU one alone is as fast, and an image's features are then the
same to the last bit whatever block it is in."""

MATCH_BATCH = {"cpu": 4, "cuda": 64}
"""Pairs that are matched together. A GPU needs half of the time per pair for 64 that it needs for 4."""


@dataclass(frozen=True)
class ImageFacts:
    """What a row says of an image: its size in pixels, as decoded, and the sha256 of its bytes; or why it failed."""

    size: Size = (0, 0)
    sha256: str = ""
    failure: str = ""


def common_row(number: int, record: PairRecord, source: ImageFacts, target: ImageFacts) -> dict[str, Any]:
    """The columns that every table of pairs has."""
    return {
        "number": number,
        "pair_id": record.pair_id,
        "category": printable(record.category),
        "source": printable(record.source),
        "target": printable(record.target),
        "status": source.failure or target.failure or MATCHED,
        "source_sha256": source.sha256,
        "target_sha256": target.sha256,
        "mirrored": record.mirrored,
        "source_size": list(source.size),
        "target_size": list(target.size),
        "layers": 0,
    }


@dataclass(frozen=True)
class MatchedPair:
    """One pair and what the network says of it.

    Attributes:
        number: running number of the pair in its set.
        found: of this pair alone, on the CPU.
        layers: selected layers, ascending.
        seconds: its share of the block's matching time.
        joint: what all paths through other images of the block say, on the CPU; None where it was matched alone.
    """

    number: int
    record: PairRecord
    source: ImageFacts
    target: ImageFacts
    found: BestCells
    layers: tuple[int, ...]
    seconds: float
    joint: JointMatches | None = None

    def common_row(self) -> dict[str, Any]:
        """The columns that every table of pairs has."""
        row = common_row(self.number, self.record, self.source, self.target)
        return row | {"layers": layer_mask(self.layers)}

    def matches(self, limit: int) -> tuple[Points, Points, NDArray[np.float32]]:
        """The best mutual matches: points of source and target in original pixels, and confidences."""
        best = mutual_matches(self.found, limit, self.joint)
        source = points_from_frame(best.source_points.numpy(), self.source.size, self.record.mirrored)
        target = points_from_frame(best.target_points.numpy(), self.target.size, self.record.mirrored)
        return source, target, best.confidence.numpy()

    def transfer(self, points: Points) -> tuple[Points, NDArray[np.bool_], NDArray[np.float32]]:
        """(K, 2) source points, which were wanted, in the target's original pixels; (K,) valid; (K,) confidence."""
        framed = torch.from_numpy(points_to_frame(points, self.source.size, self.record.mirrored))[None]
        every = torch.ones(framed.shape[:2], dtype=torch.bool)
        moved = (
            transfer(self.found, framed, every) if self.joint is None else transfer_jointly(self.joint, framed, every)
        )
        predicted = points_from_frame(moved.points[0].numpy(), self.target.size, self.record.mirrored)
        return predicted, moved.valid[0].numpy(), moved.confidence[0].numpy()

    def flow(self) -> Points:
        """(N, 2) target point in original pixels of every source cell; every cell was wanted."""
        flow = dense_flow(self.found)[0] if self.joint is None else self.joint.points
        return points_from_frame(flow.numpy(), self.target.size, self.record.mirrored)


class RowMaker(Protocol):
    """What a stage makes of a matched pair; travels to the actors."""

    @property
    def schema(self) -> pa.Schema: ...

    def wanted_points(self, record: PairRecord) -> Sequence[Points] | None:
        """Source points, in original pixels, that the row will transfer; None for every cell of the grid."""

    def __call__(self, pair: MatchedPair) -> Mapping[str, Any]: ...

    def failed(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row of a pair that could not be matched, from its `common_row`."""


@dataclass(frozen=True)
class OpenBlock:
    """A block in an actor's hands.

    Attributes:
        numbers: running number of each pair in its set, from 0; of a pair list the row, from 0.
        read: gives an image's encoded bytes, or raises ImageError.
    """

    numbers: Sequence[int]
    pairs: Sequence[PairRecord]
    read: Callable[[str], bytes]

    @cached_property
    def images(self) -> list[tuple[str, bool]]:
        """The images to describe, each once: (id, mirrored)."""
        return list(dict.fromkeys((i, p.mirrored) for p in self.pairs for i in (p.source, p.target)))

    @cached_property
    def kinds(self) -> Mapping[tuple[str, bool], tuple[str, bool]]:
        """What each image shows, as far as the pairs say: the category of the first pair that has one."""
        kinds: dict[tuple[str, bool], tuple[str, bool]] = {}
        for pair in sorted(self.pairs, key=lambda p: not p.category):
            for image in (pair.source, pair.target):
                kinds.setdefault((image, pair.mirrored), (pair.category, pair.mirrored))
        return kinds


@dataclass(frozen=True)
class Caution:
    """How a block is matched that ended its worker's process before.

    Attributes:
        images: why images, by id, are left out.
        pairs: why pairs, by their place in the block, are left out.
        on_step: told what is done next: `step` is an image's place in OpenBlock.images, or beyond these a pair's place
            in the block. With it, one thing is done at a time.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[int, str] = field(default_factory=dict)
    on_step: Callable[[int], object] | None = None

    def step(self, number: int) -> None:
        if self.on_step is not None:
            self.on_step(number)


def open_block(job: Mapping[str, Any]) -> OpenBlock:
    """The block that a job of ShardSet.jobs or Collection.jobs names."""
    if "shard" in job:
        shard = Shard(*job["shard"])
        first = int(job["first"])
        return OpenBlock(range(first, first + len(shard.pairs)), shard.pairs, shard.image_bytes)
    names = dict(job["images"])
    path = None if job["pairs"] is None else Path(job["pairs"])
    rows = pairs_of(planned_block_from_json(job["block"]), path).to_pylist()
    make = _closed_pair if path is None else _listed_pair
    records = [make(row, names[row["source"]], names[row["target"]]) for row in rows]
    store = open_image_store(str(job["root"]), "collection")
    return OpenBlock([row["number"] for row in rows], records, store.read)


def _closed_pair(row: Mapping[str, Any], source: str, target: str) -> PairRecord:
    return folder_pair(row["number"], source, target)


def _listed_pair(row: Mapping[str, Any], source: str, target: str) -> PairRecord:
    points = row.get("points")
    keypoints = None if points is None else np.array(points, dtype=np.float32).reshape(-1, 2)
    return PairRecord(pair_id_of(row["number"]), row.get("category", ""), source, target, source_keypoints=keypoints)


@torch.inference_mode()
def match_block(
    network: HyperpixelNetwork,
    engine: MatchEngine,
    block: OpenBlock,
    batch_size: int | None,
    rows: RowMaker,
    feature_type: FeatureType = "float32",
    caution: Caution | None = None,
    intermediates: int = 0,
) -> Iterator[MatchedPair | Mapping[str, Any]]:
    """Matches every pair of a block, each image described once; a pair that cannot be matched gives its row at once.

    Args:
        batch_size: pairs that are matched together; None for what suits the network's device.
        rows: says which points will be transferred.
        feature_type: how the features are kept.
        intermediates: at most so many images of the block, of the pair's category, through which it is matched too.
    """
    caution = caution or Caution()
    started = time.perf_counter()
    places, features, facts = describe_block(network, block, feature_type, caution)
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
    batch_size = (batch_size or MATCH_BATCH[features.squared_norms.device.type]) if caution.on_step is None else 1
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


def describe_block(
    network: HyperpixelNetwork,
    block: OpenBlock,
    feature_type: FeatureType = "float32",
    caution: Caution | None = None,
) -> tuple[dict[tuple[str, bool], int], ImageFeatures, dict[str, ImageFacts]]:
    """The place of each usable image in the features of all of them, these features, and what is known of each.

    The next images are decoded while the network looks at one.
    """
    caution = caution or Caution()
    side, device = network.config.image_side, network.backbone.mean.device
    one_at_a_time = caution.on_step is not None
    num_ahead = 1 if one_at_a_time else DECODED_AHEAD
    batch_size = 1 if one_at_a_time else DESCRIBE_BATCH[device.type]
    places: dict[tuple[str, bool], int] = {}
    facts = {image: ImageFacts(failure=reason) for image, reason in caution.images.items()}
    squares: list[Tensor] = []
    parts: list[ImageFeatures] = []

    def describe() -> None:
        features = network.describe(torch.stack(squares).to(device))
        parts.append(features.in_half_precision() if feature_type == "float16" else features)
        squares.clear()

    with ThreadPoolExecutor(num_ahead) as decoder:  # a distant store answers late: several are asked for at once
        waiting = deque((step, image) for step, image in enumerate(block.images) if image[0] not in caution.images)
        decoding: deque[tuple[tuple[str, bool], Future[tuple[ImageFacts, Tensor | None]]]] = deque()
        while waiting or decoding:
            while waiting and len(decoding) < num_ahead:
                step, image = waiting.popleft()
                caution.step(step)
                decoding.append((image, decoder.submit(_load, block.read, *image, side)))
            image, result = decoding.popleft()
            facts[image[0]], square = result.result()
            if square is None:
                continue
            places[image] = len(places)
            squares.append(square)
            if len(squares) == batch_size:
                describe()
    if squares or not parts:
        squares = squares or [torch.zeros(3, side, side, dtype=torch.uint8)]  # no image can be used: a stand-in
        describe()
    return places, ImageFeatures.concatenate(parts), facts


def _load(read: Callable[[str], bytes], image_id: str, mirrored: bool, side: int) -> tuple[ImageFacts, Tensor | None]:
    """An image as the network sees it, or nothing where it cannot be used."""
    try:
        require_text(image_id)
        data = read(image_id)
        image = decode_image(data, image_id)
    except ImageError as error:
        return ImageFacts(failure=str(error)), None
    height, width = image.shape[:2]
    return ImageFacts((width, height), hashlib.sha256(data).hexdigest()), to_square(image, side, mirrored)
