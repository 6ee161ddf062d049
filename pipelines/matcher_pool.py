"""Batch inference: actors that take blocks, describe each image once, and commit one table per block.

Evaluation and matching share them and differ in the rows they make of a pair.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
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
from dhpf.data.blocks import planned_block_from_json
from dhpf.data.preprocessing import Size, points_from_frame, points_to_frame, to_square
from dhpf.data.shards import Shard
from dhpf.images import ImageError, decode_image, printable, require_text
from dhpf.model.best_cells import BestCells
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.geometry import NUM_CELLS
from dhpf.model.network import HyperpixelNetwork, ImageFeatures
from dhpf.model.transfer import cells_of_points, dense_flow, mutual_matches, transfer
from dhpf.pairs.image_folder import folder_pair
from dhpf.pairs.source import read_inside
from dhpf.records import PairRecord, Points
from pipelines.collection import Collection
from pipelines.config import EvaluateConfig, MatchConfig
from pipelines.model_source import ModelSource
from pipelines.shard_set import ShardSet
from pipelines.store import StageOutput
from pipelines.tables import MATCHED, layer_mask, table_of, to_parquet

DECODED_AHEAD = 4
"""Images that are decoded, or wait for it, while the network looks at one."""

REPORT_SECONDS = 5.0

DESCRIBE_BATCH = {"cpu": 1, "cuda": 8}
"""Images that pass through the backbone together. On a CPU one alone is as fast, and an image's features are then the
same to the last bit whatever block it is in."""


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
    """

    number: int
    record: PairRecord
    source: ImageFacts
    target: ImageFacts
    found: BestCells
    layers: tuple[int, ...]
    seconds: float

    def common_row(self) -> dict[str, Any]:
        """The columns that every table of pairs has."""
        row = common_row(self.number, self.record, self.source, self.target)
        return row | {"layers": layer_mask(self.layers)}

    def matches(self, limit: int) -> tuple[Points, Points, NDArray[np.float32]]:
        """The best mutual matches: points of source and target in original pixels, and confidences."""
        best = mutual_matches(self.found, limit)
        source = points_from_frame(best.source_points.numpy(), self.source.size, self.record.mirrored)
        target = points_from_frame(best.target_points.numpy(), self.target.size, self.record.mirrored)
        return source, target, best.confidence.numpy()

    def transfer(self, points: Points) -> tuple[Points, NDArray[np.bool_], NDArray[np.float32]]:
        """(K, 2) source points, which were wanted, in the target's original pixels; (K,) valid; (K,) confidence."""
        framed = torch.from_numpy(points_to_frame(points, self.source.size, self.record.mirrored))[None]
        moved = transfer(self.found, framed, torch.ones(framed.shape[:2], dtype=torch.bool))
        predicted = points_from_frame(moved.points[0].numpy(), self.target.size, self.record.mirrored)
        return predicted, moved.valid[0].numpy(), moved.confidence[0].numpy()

    def flow(self) -> Points:
        """(N, 2) target point in original pixels of every source cell; every cell was wanted."""
        return points_from_frame(dense_flow(self.found)[0].numpy(), self.target.size, self.record.mirrored)


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
class Progress:
    """How far matching has come.

    Attributes:
        num_pairs: done in this run.
        num_failed: of these, pairs with an image that cannot be used.
        seconds: since the first block was handed out.
    """

    num_pairs: int
    num_failed: int
    seconds: float


def match_blocks(
    pairs: ShardSet | Collection,
    model: ModelSource,
    rows: RowMaker,
    output: StageOutput,
    config: EvaluateConfig | MatchConfig,
    *,
    title: str,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Has actors do every block of the plan that is not done; a block is done when its table is committed.

    Args:
        title: of the progress bar.
        report: told of the progress every few seconds.
    """
    jobs = list(pairs.jobs(set(output.missing())))
    if not jobs:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # These bounds have no other name yet, without them a crashing block is retried for ever.
    warnings.filterwarnings("ignore", category=RayDeprecationWarning, message=".*ray_remote_args.*")
    items = [{"task": job["task"], "job": json.dumps(job["job"])} for job in jobs]
    results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        BlockMatcher,
        fn_constructor_args=(model, rows, str(output.root), config.batch_size, config.resources.cpus, config.engine),
        batch_size=1,
        batch_format="numpy",
        # A pool is never larger than the work; Ray Data also needs free CPUs beside its actors.
        compute=ActorPoolStrategy(size=min(config.num_actors, len(items))),
        num_cpus=config.resources.cpus,
        num_gpus=config.resources.gpus,
        max_task_retries=2,
        max_restarts=4,
    )
    started = reported = time.time()
    num_pairs = num_failed = 0
    with tqdm(total=sum(job["num_pairs"] for job in jobs), desc=title, unit="pair") as bar:
        for row in results.iter_rows():
            num_pairs, num_failed = num_pairs + int(row["num_pairs"]), num_failed + int(row["num_failed"])
            bar.update(int(row["num_pairs"]))
            if num_failed:
                bar.set_postfix(failed=num_failed)
            if time.time() - reported > REPORT_SECONDS:
                reported = time.time()
                report(Progress(num_pairs, num_failed, reported - started))


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
        num_pairs, num_failed = [], []
        for task, job in zip(batch["task"], batch["job"], strict=True):
            started = time.time()
            block = open_block(json.loads(str(job)))
            rows = list(self._match(block))
            failures = [row["status"] for row in rows if row["status"] != MATCHED]
            info = {
                "num_pairs": len(rows),
                "num_failed": len(failures),
                "first_failure": failures[0] if failures else None,
                "num_encoded": len(block.images),
                "seconds": time.time() - started,
            }
            self._output.commit(str(task), {"part.parquet": to_parquet(table_of(rows, self._rows.schema))}, info)
            num_pairs.append(len(rows))
            num_failed.append(len(failures))
        return {"num_pairs": num_pairs, "num_failed": num_failed}

    def _match(self, block: OpenBlock) -> Iterator[Mapping[str, Any]]:
        for pair in match_block(self._network, self._engine, block, self._batch_size, self._rows):
            yield self._rows(pair) if isinstance(pair, MatchedPair) else self._rows.failed(pair)


@dataclass(frozen=True)
class OpenBlock:
    """A block in an actor's hands.

    Attributes:
        first: running number of its first pair.
        read: gives an image's encoded bytes, or raises ImageError.
    """

    first: int
    pairs: Sequence[PairRecord]
    read: Callable[[str], bytes]

    @cached_property
    def images(self) -> list[tuple[str, bool]]:
        """The images to describe, each once: (id, mirrored)."""
        return list(dict.fromkeys((i, p.mirrored) for p in self.pairs for i in (p.source, p.target)))


def open_block(job: Mapping[str, Any]) -> OpenBlock:
    """The block that a job of ShardSet.jobs or Collection.jobs names."""
    if "shard" in job:
        shard = Shard(*job["shard"])
        return OpenBlock(int(job["first"]), shard.pairs, shard.image_bytes)
    block = planned_block_from_json(job["block"])
    names = {begin + n: name for begin, images in job["images"] for n, name in enumerate(images)}
    pairs = enumerate(block.positions().tolist(), start=block.first_pair + 1)
    records = [folder_pair(number, names[source], names[target]) for number, (source, target) in pairs]
    return OpenBlock(block.first_pair, records, partial(read_inside, str(job["root"])))


@torch.inference_mode()
def match_block(
    network: HyperpixelNetwork, engine: MatchEngine, block: OpenBlock, batch_size: int, rows: RowMaker
) -> Iterator[MatchedPair | Mapping[str, Any]]:
    """Matches every pair of a block, each image described once; a pair that cannot be matched gives its row at once.

    Args:
        batch_size: pairs that are matched together.
        rows: says which points will be transferred.
    """
    started = time.perf_counter()
    places, features, facts = describe_block(network, block)
    describe_share = (time.perf_counter() - started) / max(1, len(block.pairs))
    usable = []
    for number, record in enumerate(block.pairs, start=block.first):
        source, target = facts[record.source], facts[record.target]
        if source.failure or target.failure:
            yield common_row(number, record, source, target)
        else:
            usable.append((number, record))
    for begin in range(0, len(usable), batch_size):
        batch = usable[begin : begin + batch_size]
        started = time.perf_counter()
        pairs = [(places[r.source, r.mirrored], places[r.target, r.mirrored]) for _, r in batch]
        wanted = torch.stack([_wanted_cells(rows, r, facts[r.source].size) for _, r in batch])
        found, selection = network.match(features, features, pairs, wanted.to(features.squared_norms.device), engine)
        found = found.to("cpu")
        seconds = describe_share + (time.perf_counter() - started) / len(batch)
        for offset, (number, record) in enumerate(batch):
            layers = tuple(selection[offset].nonzero().flatten().tolist())
            source, target = facts[record.source], facts[record.target]
            yield MatchedPair(number, record, source, target, found[offset], layers, seconds)


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
    network: HyperpixelNetwork, block: OpenBlock
) -> tuple[dict[tuple[str, bool], int], ImageFeatures, dict[str, ImageFacts]]:
    """The place of each usable image in the features of all of them, these features, and what is known of each.

    The next images are decoded while the network looks at one.
    """
    side, device = network.config.image_side, network.backbone.mean.device
    places: dict[tuple[str, bool], int] = {}
    facts: dict[str, ImageFacts] = {}
    squares: list[Tensor] = []
    parts: list[ImageFeatures] = []

    def describe() -> None:
        parts.append(network.describe(torch.stack(squares).to(device)))
        squares.clear()

    with ThreadPoolExecutor(1) as decoder:
        waiting = deque(block.images)
        decoding: deque[tuple[tuple[str, bool], Future[tuple[ImageFacts, Tensor | None]]]] = deque()
        while waiting or decoding:
            while waiting and len(decoding) < DECODED_AHEAD:
                image = waiting.popleft()
                decoding.append((image, decoder.submit(_load, block.read, *image, side)))
            image, result = decoding.popleft()
            facts[image[0]], square = result.result()
            if square is None:
                continue
            places[image] = len(places)
            squares.append(square)
            if len(squares) == DESCRIBE_BATCH[device.type]:
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
