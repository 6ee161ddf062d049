"""What does blocks one after the other: it matches a block and commits its table."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from dhpf.config import EngineName
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.config import FeatureType, Resources
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import Caution, MatchedPair, RowMaker, match_block, open_block
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

    def match(self, task: str, job: str, caution: Caution) -> CommitRecord:
        """Matches the block that a job, as JSON, describes, and commits it."""
        started = time.time()
        block = open_block(json.loads(job))
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
        return self._output.commit(task, {"part.parquet": to_parquet(table_of(rows, self._rows.schema))}, info)
