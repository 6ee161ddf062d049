"""Worker that matches blocks and commits their tables."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from dhpf.config import EngineName
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.config import FeatureType, Resources
from dhpf.pipelines.inputs.block_job import BlockJob
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import match_block
from dhpf.pipelines.matching.caution import Caution
from dhpf.pipelines.matching.matched_pair import MatchedPair, RowMaker
from dhpf.pipelines.outputs.store import CommitRecord, StageOutput
from dhpf.pipelines.outputs.tables import MATCHED, table_of, to_parquet


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is made from; travels to the actors.

    Attributes:
        root: folder of the stage output that the tables go to.
        batch_size: pairs matched at once; None for what suits the device.
        resources: what it may use.
        features, intermediates: as in MatchConfig.
    """

    model: ModelSource
    rows: RowMaker
    root: str
    batch_size: int | None
    resources: Resources
    engine: EngineName
    features: FeatureType = "float32"
    intermediates: int = 0


class BlockWorker:
    """A network, and blocks one after the other."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._network = settings.model.load(settings.resources)
        self._engine = choose_engine(settings.engine, self._network.backbone.mean.device)
        self._rows, self._features, self._intermediates = settings.rows, settings.features, settings.intermediates
        self._output = StageOutput(settings.root)
        self._batch_size = settings.batch_size

    def match(self, job: BlockJob, caution: Caution) -> CommitRecord:
        """Matches the block of a job and commits its table."""
        started = time.time()
        block = job.open()
        rows: list[Any] = []
        how = (self._batch_size, self._rows, self._features, caution, self._intermediates)
        for pair in match_block(self._network, self._engine, block, *how):
            rows.append(self._rows(pair) if isinstance(pair, MatchedPair) else self._rows.failed(pair))
        failures = [row["status"] for row in rows if row["status"] != MATCHED]
        info = {
            "num_pairs": len(rows),
            "num_failed": len(failures),
            "first_failure": failures[0] if failures else None,
            "num_encoded": len(block.images),
            "seconds": time.time() - started,
        }
        return self._output.commit(job.task, {"part.parquet": to_parquet(table_of(rows, self._rows.schema))}, info)
