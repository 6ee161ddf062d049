"""Matches a block: describes each of its images once, then matches every pair; the worker commits a table of them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from dhpf.config import BordersName, EngineName
from dhpf.errors import InputError
from dhpf.frame import NUM_CELLS, Size, lies_outside, points_to_frame
from dhpf.manifest import CommitRecord, Damaged
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.engine import MatchEngine
from dhpf.model.joint import JointMatching
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.transfer import PairMatch, cells_of_points
from dhpf.model.usable_cells import UsableCells, within_part
from dhpf.pipelines.blocks.caution import NO_CAUTION, WHOLE_BLOCK, Caution, Step
from dhpf.pipelines.cluster_metrics import CountedReads, StageName, Work, count_work, reasons_of, set_gpu_memory
from dhpf.pipelines.config import FeatureType, Resources
from dhpf.pipelines.inputs.block_source import BlockJob, OpenBlock
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.describing import DescribedBlock, ImageFacts, describe_block
from dhpf.pipelines.matching.matched_pair import MatchedPair, RowMaker, common_row, table_row
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.tables import MATCHED, ranked_pairs, read_parquet, table_of
from dhpf.pipelines.outputs.writers import PART, file_name, table_file
from dhpf.records import PairRecord

MOST_REASONS = 5
"""The record of a block says of so many different reasons how many of its pairs failed for them."""

_log = logging.getLogger(__name__)

MATCH_BATCH = {"cpu": 4, "cuda": 64}
"""Pairs that are matched together, by type of device. A GPU takes half as long per pair for 64 as for 4."""


@dataclass(frozen=True)
class MatchOptions:
    """How a block is matched.

    Attributes:
        batch_size: pairs that are matched together; None for what suits the network's device.
        features: type in which features are kept.
        intermediates: each pair is also matched through at most this many other images of its block and category; 0
            for none.
        borders: whether cells on an image's plain border take part.
    """

    batch_size: int | None = None
    features: FeatureType = "float32"
    intermediates: int = 0
    borders: BordersName = "kept"


AS_SUITS = MatchOptions()
"""Matches each pair directly, in batches that suit the device."""


@torch.inference_mode()
def match_block(
    network: HyperpixelNetwork,
    engine: MatchEngine,
    block: OpenBlock,
    rows: RowMaker,
    options: MatchOptions = AS_SUITS,
    caution: Caution = NO_CAUTION,
    kept: Collection[int] = frozenset(),
) -> Iterator[MatchedPair | dict[str, Any]]:
    """Matches every pair of a block, after describing each image once.

    Args:
        rows: says which points of a pair will be transferred.
        caution: what is left out, and what is called before each step.
        kept: numbers of pairs that are matched already; only for joint matching their images are described, too.

    Yields:
        a MatchedPair for each matched pair; for a pair that cannot be matched its `common_row`, whose status says why.
    """
    started = time.perf_counter()
    shown = block.without(kept) if kept and not options.intermediates else block
    described = describe_block(network, shown, options.features, caution, options.borders)
    describe_share = (time.perf_counter() - started) / max(1, len(block.pairs) - len(kept))
    usable = []
    for place, (number, record) in enumerate(zip(block.numbers, block.pairs, strict=True)):
        if number in kept:
            continue
        source, target = described.facts[record.source], described.facts[record.target]
        failure = source.failure or target.failure or _left_out(record, place, caution) or _misplaced(record, source)
        try:
            cells = None if failure else _usable_cells(described, record, block.within_boxes)
        except InputError as error:
            failure = str(error)
        if cells is None or failure:
            yield common_row(number, record, source, target) | {"status": failure}
        else:
            usable.append((place, number, record, cells))
    joint = None
    if options.intermediates:
        caution.step(WHOLE_BLOCK)
        kinds = [block.kinds[image] for image in described.places]
        of_images = described.usable.to(described.features.squared_norms.device)
        limit, side = options.intermediates, network.config.joint_side
        joint = JointMatching(network, described.features, kinds, limit, side, of_images)
    batch_size = options.batch_size or MATCH_BATCH[described.features.squared_norms.device.type]
    batch_size = 1 if caution.is_stepwise else batch_size
    for begin in range(0, len(usable), batch_size):
        batch = usable[begin : begin + batch_size]
        caution.step(Step.of_pair(batch[0][0]))
        started = time.perf_counter()
        records, cells = [record for _, _, record, _ in batch], UsableCells.concatenate([cells for *_, cells in batch])
        found = _match_batch(network, engine, described, joint, records, cells, rows)
        seconds = describe_share + (time.perf_counter() - started) / len(batch)
        for (_, number, record, _), (match, layers) in zip(batch, found, strict=True):
            source, target = described.facts[record.source], described.facts[record.target]
            yield MatchedPair(number, record, source, target, match, layers, seconds)


def _match_batch(
    network: HyperpixelNetwork,
    engine: MatchEngine,
    described: DescribedBlock,
    joint: JointMatching | None,
    records: Sequence[PairRecord],
    cells: UsableCells,
    rows: RowMaker,
) -> list[tuple[PairMatch, tuple[int, ...]]]:
    """The matches of each pair, on the CPU, and the layers selected for it, ascending."""
    features, places, facts = described.features, described.places, described.facts
    pairs = [(places[r.source, r.mirrored], places[r.target, r.mirrored]) for r in records]
    wanted = torch.stack([_wanted_cells(rows, r, facts[r.source].size) for r in records])
    device = features.squared_norms.device
    usable = None if cells.is_every else cells.to(device)
    found, selection = network.match(features, features, pairs, wanted.to(device), engine, usable)
    found = found.to("cpu")
    matches = []
    for offset, (source, target) in enumerate(pairs):
        one, of_pair = found[offset], cells[offset : offset + 1]
        of_source = None if of_pair.is_every else of_pair.source[0]
        if joint is None:
            matches.append(PairMatch.alone(one, of_source))
        else:
            ends = None if of_pair.is_every else of_pair.to(device)
            through = joint.match(source, target, ends).to("cpu")
            matches.append(PairMatch.jointly(one, through, network.config.readout, of_source))
    layers = [tuple(selected.nonzero().flatten().tolist()) for selected in selection]
    return list(zip(matches, layers, strict=True))


def _usable_cells(described: DescribedBlock, record: PairRecord, within_boxes: bool) -> UsableCells:
    """Those of a pair, as a batch of one.

    Args:
        within_boxes: whether the pair's boxes bound them.

    Raises:
        InputError: a box that does not lie within its image, or is too small.
    """
    cells = []
    for name, image, box in (
        ("source_box", record.source, record.source_box),
        ("target_box", record.target, record.target_box),
    ):
        usable = described.usable[described.places[image, record.mirrored]]
        if within_boxes and box is not None:
            usable = within_part(box, described.facts[image].size, f"{name} of {image}", usable)
        cells.append(usable[None])
    return UsableCells(*cells)


def _left_out(record: PairRecord, place: int, caution: Caution) -> str | None:
    reason = caution.pairs.get(place)
    return reason and f"pair {record.pair_id}: {reason}"


def _misplaced(record: PairRecord, source: ImageFacts) -> str | None:
    if record.source_keypoints is None:
        return None
    reason = lies_outside(record.source_keypoints, source.size, record.source)
    return reason and f"source_points: {reason}"


def _wanted_cells(rows: RowMaker, record: PairRecord, size: Size) -> Tensor:
    """(N,) bool, the source cells whose match the row of a pair needs."""
    points = rows.wanted_points(record)
    if points is None:
        return torch.ones(NUM_CELLS, dtype=torch.bool)
    if not points:
        return torch.zeros(NUM_CELLS, dtype=torch.bool)
    framed = torch.from_numpy(points_to_frame(np.concatenate(points), size, record.mirrored))[None]
    return cells_of_points(framed, torch.ones(framed.shape[:2], dtype=torch.bool))[0]


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker is built from; pickled and sent to the actors.

    Attributes:
        root: folder of the stage output that the tables go to.
        resources: what the worker may use.
        engine: which implementation matches.
        options: how blocks are matched.
    """

    model: ModelSource
    rows: RowMaker
    root: str
    resources: Resources
    engine: EngineName
    options: MatchOptions = AS_SUITS

    @property
    def stage(self) -> StageName:
        return self.rows.stage

    def worker(self) -> BlockWorker:
        """Loads the model."""
        return BlockWorker(self)


class BlockWorker:
    """Holds a network; matches one block after another and commits a table for each."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._network = settings.model.load(settings.resources)
        self._engine = choose_engine(settings.engine, self._network.backbone.mean.device)
        self._rows, self._options = settings.rows, settings.options
        self._output = StageOutput(settings.root)

    def work(self, job: BlockJob, caution: Caution) -> CommitRecord:
        """Matches the block of a job and commits its table.

        Raises:
            InputError: something that the block needs cannot be read, and no image is at fault.
        """
        try:
            return self._match(job, caution)
        except InputError:
            count_work(self._rows.stage, Work(errors={"block": 1}))
            raise

    def _match(self, job: BlockJob, caution: Caution) -> CommitRecord:
        started = time.time()
        block = job.open()
        reads = CountedReads(block.read)
        block = replace(block, read=reads)
        kept = self._kept(job.earlier)
        numbers = frozenset(kept["number"].to_pylist())
        pairs = match_block(self._network, self._engine, block, self._rows, self._options, caution, numbers)
        rows = [table_row(self._rows, pair) for pair in pairs]
        caution.step(WHOLE_BLOCK)
        failures = [row["status"] for row in rows if row["status"] != MATCHED]
        table = table_of(rows, self._rows.schema)
        if numbers:
            table = joined_parts(kept, table, block.numbers)
        info = {
            "num_pairs": len(table),
            "num_failed": len(failures),
            "first_failure": failures[0] if failures else None,
            "reasons": dict(Counter(map(_without_name, failures)).most_common(MOST_REASONS)),
            "num_described": len(block.images),
            "seconds": time.time() - started,
        }
        if "score" in table.schema.names:
            info["scores"] = ranked_pairs(table)
        commit = self._output.commit(job.task, table_file(PART, table), info)
        seconds = time.time() - started
        work = Work(len(rows), len(block.images), 0, reads.num_bytes, seconds, reasons_of(failures))
        count_work(self._rows.stage, work)
        set_gpu_memory(self._rows.stage, self._network.backbone.mean.device)
        return commit

    def _kept(self, earlier: CommitRecord | None) -> pa.Table:
        """The rows of pairs that an earlier run of the block has matched; none where its table is damaged."""
        schema = self._rows.schema
        if earlier is None:
            return schema.empty_table()
        try:
            part = self._output.read(earlier, file_name(PART))
            table = read_parquet([part], schema, where=self._output.root)
        except Damaged as error:
            _log.warning("%s; the whole block is matched again", error)
            return schema.empty_table()
        return table.filter(pc.equal(table["status"], MATCHED)).cast(schema)


def _without_name(failure: str) -> str:
    """Why a pair failed, without the image or pair that the text names first."""
    return failure.partition(": ")[2] or failure


def joined_parts(kept: pa.Table, made: pa.Table, numbers: Sequence[int]) -> pa.Table:
    """Two parts of a block's table, in the order of one that was made at once: failed pairs first, each as planned.

    Args:
        numbers: of the block's pairs, in order.
    """
    table = pa.concat_tables([kept, made])
    places = {number: place for place, number in enumerate(numbers)}
    rows = zip(table["status"].to_pylist(), table["number"].to_pylist(), strict=True)
    ranks = [(status == MATCHED, places[number]) for status, number in rows]
    return table.take(sorted(range(len(ranks)), key=ranks.__getitem__)).combine_chunks()
