"""The actor of the pool, run in this process; the stages run whole pools."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhpf.config import ModelConfig
from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks import pool
from dhpf.pipelines.blocks.pool import BlockActor
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.block_source import BlockJob
from dhpf.pipelines.inputs.collection import Collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import BlockWorker, WorkerSettings
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.storage import FileLocation

MODEL = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
ROWS = CorrespondenceRows(5, False, "m", "c")


def job_of(collection: Collection, task: str) -> BlockJob:
    [job] = collection.jobs({task})
    return job


def actor(output: StageOutput) -> BlockActor[BlockJob]:
    return BlockActor([WorkerSettings(MODEL, ROWS, str(output.root), Resources(), "auto")], 300)


def done(output: StageOutput, job: BlockJob, attempt: int, quarantined: Mapping[str, str]) -> CommitRecord:
    answer = actor(output).work(0, job, attempt, quarantined)
    assert answer is not None and answer[0] == 0
    return answer[1]


def statuses(output: StageOutput, task: str) -> list[str]:
    commit = output.commit_of(task)
    assert commit is not None
    found: list[str] = pq.read_table(pa.BufferReader(output.read(commit, "part.parquet")))["status"].to_pylist()
    return found


def test_a_block_that_is_committed_is_not_done_again(collection: Collection, output: StageOutput) -> None:
    first = job_of(collection, "block-000000")
    commit = done(output, first, 1, {})
    assert (commit.info["num_pairs"], commit.info["num_failed"]) == (2, 0)
    for path in Path(collection.config.root).iterdir():
        path.unlink()
    assert done(output, first, 2, {}) == commit, "its first actor was lost with its answer"


def test_a_block_that_was_begun_goes_into_quarantine(
    collection: Collection, output: StageOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(pool, "try_in_quarantine", lambda settings, job, seconds: tried.append(job.task))
    for attempt in range(1, 200, 50):
        actor(output).work(0, job_of(collection, "block-000001" if attempt > 1 else "block-000000"), attempt, {})
    assert tried == ["block-000001"] * 3, "however often its actors were ended"


def test_images_under_quarantine_are_left_out(collection: Collection, output: StageOutput) -> None:
    actor(output).work(0, job_of(collection, "block-000000"), 1, {"0.png": "image 0.png: ended a process"})
    assert set(statuses(output, "block-000000")) == {"image 0.png: ended a process"}


def test_a_block_of_a_folder_asks_the_store_for_no_more_than_its_two_puts(
    collection: Collection, output: StageOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("put", "put_if_absent", "find", "entries", "size", "read_range"):
        method = getattr(FileLocation, name)
        monkeypatch.setattr(
            FileLocation,
            name,
            lambda place, *given, name=name, method=method: asked.append(name) or method(place, *given),
        )
    actor(output).work(0, job_of(collection, "block-000000"), 1, {})
    assert asked == ["put", "put_if_absent"]


def test_an_error_says_which_block_it_came_from(
    collection: Collection, output: StageOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(BlockWorker, "work", broken)
    with pytest.raises(ZeroDivisionError) as found:
        actor(output).work(0, job_of(collection, "block-000000"), 1, {})
    assert pickle.loads(pickle.dumps(found.value)).__notes__ == ["while it did block-000000"]
