"""Worker that matches blocks and commits their tables."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dhpf.config import EngineName
from dhpf.manifest import CommitRecord
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.block_job import BlockJob
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import AS_SUITS, MatchOptions, match_block
from dhpf.pipelines.matching.caution import Caution
from dhpf.pipelines.matching.matched_pair import RowMaker, table_row
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.tables import MATCHED, table_of
from dhpf.pipelines.outputs.writers import PART, table_file


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is built from; pickled and sent to the actors.

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


class BlockWorker:
    """Holds a network; matches one block after another and commits a table for each."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._network = settings.model.load(settings.resources)
        self._engine = choose_engine(settings.engine, self._network.backbone.mean.device)
        self._rows, self._options = settings.rows, settings.options
        self._output = StageOutput(settings.root)

    def match(self, job: BlockJob, caution: Caution) -> CommitRecord:
        """Matches the block of a job and commits its table."""
        started = time.time()
        block = job.open()
        pairs = match_block(self._network, self._engine, block, self._rows, self._options, caution)
        rows = [table_row(self._rows, pair) for pair in pairs]
        failures = [row["status"] for row in rows if row["status"] != MATCHED]
        info = {
            "num_pairs": len(rows),
            "num_failed": len(failures),
            "first_failure": failures[0] if failures else None,
            "num_described": len(block.images),
            "seconds": time.time() - started,
        }
        return self._output.commit(job.task, table_file(PART, table_of(rows, self._rows.schema)), info)
