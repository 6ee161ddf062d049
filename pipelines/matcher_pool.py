"""Batch inference: actors that take blocks, describe each image once, and commit one table per block.

Evaluation and matching share them and differ in the rows they make of a pair.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning
from torch import Tensor
from tqdm import tqdm

from dhpf.config import EngineName
from dhpf.data.preprocessing import Size, points_from_frame, points_to_frame, to_square
from dhpf.data.shards import Shard
from dhpf.images import decode_image
from dhpf.model.best_cells import BestCells
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.geometry import NUM_CELLS
from dhpf.model.network import HyperpixelNetwork, ImageFeatures
from dhpf.model.transfer import cells_of_points, dense_flow, mutual_matches, transfer
from dhpf.records import PairRecord, Points
from pipelines.config import Resources
from pipelines.model_source import ModelSource
from pipelines.shard_set import ShardSet
from pipelines.store import StageOutput
from pipelines.tables import table_of, to_parquet

DESCRIBE_BATCH = {"cpu": 1, "cuda": 8}
"""Images that pass through the backbone together. On a CPU one alone is as fast, and an image's features are then the
same to the last bit whatever block it is in."""


@dataclass(frozen=True)
class MatchedPair:
    """One pair and what the network says of it.

    Attributes:
        number: running number of the pair in its shard set.
        found: of this pair alone, on the CPU.
        layers: selected layers, ascending.
        seconds: its share of the block's matching time.
    """

    number: int
    record: PairRecord
    source_size: Size
    target_size: Size
    source_sha256: str
    target_sha256: str
    found: BestCells
    layers: tuple[int, ...]
    seconds: float

    def common_row(self) -> dict[str, Any]:
        """The columns that every table of pairs has."""
        return {
            "number": self.number,
            "pair_id": self.record.pair_id,
            "category": self.record.category,
            "source": self.record.source,
            "target": self.record.target,
            "source_sha256": self.source_sha256,
            "target_sha256": self.target_sha256,
            "mirrored": self.record.mirrored,
            "source_size": list(self.source_size),
            "target_size": list(self.target_size),
            "layers": list(self.layers),
        }

    def matches(self, limit: int) -> tuple[Points, Points, NDArray[np.float32]]:
        """The best mutual matches: points of source and target in original pixels, and confidences."""
        best = mutual_matches(self.found, limit)
        source = points_from_frame(best.source_points.numpy(), self.source_size, self.record.mirrored)
        target = points_from_frame(best.target_points.numpy(), self.target_size, self.record.mirrored)
        return source, target, best.confidence.numpy()

    def transfer(self, points: Points) -> tuple[Points, NDArray[np.bool_], NDArray[np.float32]]:
        """(K, 2) source points, which were wanted, in the target's original pixels; (K,) valid; (K,) confidence."""
        framed = torch.from_numpy(points_to_frame(points, self.source_size, self.record.mirrored))[None]
        moved = transfer(self.found, framed, torch.ones(framed.shape[:2], dtype=torch.bool))
        predicted = points_from_frame(moved.points[0].numpy(), self.target_size, self.record.mirrored)
        return predicted, moved.valid[0].numpy(), moved.confidence[0].numpy()

    def flow(self) -> Points:
        """(N, 2) target point in original pixels of every source cell; every cell was wanted."""
        return points_from_frame(dense_flow(self.found)[0].numpy(), self.target_size, self.record.mirrored)


class RowMaker(Protocol):
    """What a stage makes of a matched pair; travels to the actors."""

    @property
    def schema(self) -> pa.Schema: ...

    def wanted_points(self, record: PairRecord) -> Sequence[Points] | None:
        """Source points, in original pixels, that the row will transfer; None for every cell of the grid."""

    def __call__(self, pair: MatchedPair) -> Mapping[str, Any]: ...


def match_blocks(
    name: str,
    shards: ShardSet,
    model: ModelSource,
    rows: RowMaker,
    output: StageOutput,
    *,
    batch_size: int,
    num_actors: int,
    resources: Resources,
    engine: EngineName,
) -> None:
    """Has actors do every block of the plan that is not done; a block is done when its table is committed."""
    missing = output.missing()
    if not missing:
        return
    by_task = dict(shards.shards)
    numbers = shards.first_numbers()
    jobs = [{"task": t, "paths": list(by_task[t].paths), "first": numbers[t]} for t in missing]
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # These bounds have no other name yet, without them a crashing block is retried for ever.
    warnings.filterwarnings("ignore", category=RayDeprecationWarning, message=".*ray_remote_args.*")
    # A pool is never larger than the work; Ray Data also needs free CPUs beside its actors.
    pool = ActorPoolStrategy(size=min(num_actors, len(jobs)))
    results = ray.data.from_items(jobs, override_num_blocks=len(jobs)).map_batches(
        BlockMatcher,
        fn_constructor_args=(model, rows, str(output.root), batch_size, resources.cpus, engine),
        batch_size=1,
        batch_format="numpy",
        compute=pool,
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        max_task_retries=2,
        max_restarts=4,
    )
    total = sum(len(by_task[task]) for task in missing)
    with tqdm(total=total, desc=name, unit="pair") as bar:
        for row in results.iter_rows():
            bar.update(int(row["num_pairs"]))


class BlockMatcher:
    """The actor: a network, and blocks one after the other."""

    def __init__(
        self, model: ModelSource, rows: RowMaker, root: str, batch_size: int, cpus: float, engine: EngineName
    ) -> None:
        self._network = model.load(int(cpus))
        self._engine = choose_engine(engine, self._network.backbone.mean.device)
        self._rows = rows
        self._output = StageOutput(root)
        self._batch_size = batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        num_pairs = []
        for task, paths, first in zip(batch["task"], batch["paths"], batch["first"], strict=True):
            started = time.time()
            shard = Shard(*paths)
            matched = match_shard(self._network, self._engine, shard, int(first), self._batch_size, self._rows)
            rows = [self._rows(pair) for pair in matched]
            table = to_parquet(table_of(rows, self._rows.schema))
            info = {"num_pairs": len(rows), "num_encoded": len(images_of(shard)), "seconds": time.time() - started}
            self._output.commit(str(task), {"part.parquet": table}, info)
            num_pairs.append(len(rows))
        return {"num_pairs": num_pairs}


def images_of(shard: Shard) -> list[tuple[str, bool]]:
    """The images to describe, each once: (id, mirrored)."""
    return list(dict.fromkeys((i, p.mirrored) for p in shard.pairs for i in (p.source, p.target)))


@torch.inference_mode()
def match_shard(
    network: HyperpixelNetwork, engine: MatchEngine, shard: Shard, first: int, batch_size: int, rows: RowMaker
) -> Iterator[MatchedPair]:
    """Matches every pair of a block, each image described once.

    Args:
        first: running number of the block's first pair.
        batch_size: pairs that are matched together.
        rows: says which points will be transferred.
    """
    started = time.perf_counter()
    places, features = _describe(network, shard)
    describe_share = (time.perf_counter() - started) / max(1, len(shard))
    for begin in range(0, len(shard), batch_size):
        records = shard.pairs[begin : begin + batch_size]
        started = time.perf_counter()
        pairs = [(places[r.source, r.mirrored], places[r.target, r.mirrored]) for r in records]
        wanted = torch.stack([_wanted_cells(rows, r, shard.image_size(r.source)) for r in records])
        found, selection = network.match(features, features, pairs, wanted.to(features.squared_norms.device), engine)
        found = found.to("cpu")
        seconds = describe_share + (time.perf_counter() - started) / len(records)
        for offset, record in enumerate(records):
            yield MatchedPair(
                number=first + begin + offset,
                record=record,
                source_size=shard.image_size(record.source),
                target_size=shard.image_size(record.target),
                source_sha256=shard.image_digest(record.source),
                target_sha256=shard.image_digest(record.target),
                found=found[offset],
                layers=tuple(selection[offset].nonzero().flatten().tolist()),
                seconds=seconds,
            )


def _wanted_cells(rows: RowMaker, record: PairRecord, size: Size) -> Tensor:
    """(N,) bool, the source cells whose match a row needs."""
    points = rows.wanted_points(record)
    if points is None:
        return torch.ones(NUM_CELLS, dtype=torch.bool)
    if not points:
        return torch.zeros(NUM_CELLS, dtype=torch.bool)
    framed = torch.from_numpy(points_to_frame(np.concatenate(points), size, record.mirrored))[None]
    return cells_of_points(framed, torch.ones(framed.shape[:2], dtype=torch.bool))[0]


def _describe(network: HyperpixelNetwork, shard: Shard) -> tuple[dict[tuple[str, bool], int], ImageFeatures]:
    """The features of all images of a block, and the place of each image in them."""
    images = images_of(shard)
    side = network.config.image_side
    device = network.backbone.mean.device
    parts = []
    batch = DESCRIBE_BATCH[device.type]
    for begin in range(0, len(images), batch):
        squares = [
            to_square(decode_image(shard.image_bytes(image_id), image_id), side, mirrored)
            for image_id, mirrored in images[begin : begin + batch]
        ]
        parts.append(network.describe(torch.stack(squares).to(device)))
    return {image: place for place, image in enumerate(images)}, ImageFeatures.concatenate(parts)
