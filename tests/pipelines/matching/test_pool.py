"""Blocks matched by a pool of actors on Ray."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.manifest import CommitRecord
from dhpf.pipelines.config import MatchConfig
from dhpf.pipelines.inputs.collection import Collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching import pool
from dhpf.pipelines.matching.block_matching import AS_SUITS
from dhpf.pipelines.matching.pool import Tried, match_blocks
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stages.match import CorrespondenceRows

MODEL = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
ROWS = CorrespondenceRows(5, False, "m", "c")


def test_blocks_are_handed_out_as_they_are_planned_and_images_that_were_away_are_matched_when_they_are_back(
    ray_cluster: None, collection: Collection, output: StageOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(collection.config.root)
    planned: list[int] = []
    done_when_planned: list[int] = []
    jobs = collection.jobs

    def away_from_the_third(missing: set[str]) -> object:
        for number, job in enumerate(jobs(missing)):
            planned.append(number)
            done_when_planned.append(len(output.committed()))
            if number == 2:
                root.rename(root.with_name("away"))
            yield job

    config = MatchConfig(collections={"photos": collection.config}, num_actors=1)
    with monkeypatch.context() as patched:
        patched.setattr(Collection, "jobs", lambda _, missing: away_from_the_third(missing))
        with pytest.raises(InputError, match="no folder '.*photos'"):
            match_blocks(collection, MODEL, ROWS, output, config, title="match", options=AS_SUITS)
    assert planned == [0, 1, 2] and done_when_planned == [0, 1, 2]
    assert output.missing() == ["block-000002"]
    root.with_name("away").rename(root)
    match_blocks(collection, MODEL, ROWS, output, config, title="match", options=AS_SUITS)
    assert output.missing() == []
    assert all(status == "matched" for task in collection.tasks for status in statuses(output, task))


def block(number: int, num_pairs: int, reasons: dict[str, int]) -> CommitRecord:
    info = {"num_pairs": num_pairs, "num_failed": sum(reasons.values()), "reasons": reasons}
    return CommitRecord(f"block-{number:06d}", {}, info)


def test_a_hopeless_run_stops_with_its_most_frequent_reason_and_not_for_what_others_ended() -> None:
    tried = Tried()
    tried.add(block(0, 150, {"damaged": 100, "too large": 50}))
    tried.require_hope("match photos", 0.5)  # too few to tell
    tried.add(block(1, 150, {}))
    tried.require_hope("match photos", 0.5)
    tried.add(block(2, 100, {"ended its worker's process 3 times (SIGKILL, perhaps for want of memory)": 100}))
    tried.require_hope("match photos", 0.5)
    tried.add(block(3, 100, {"too large": 20, "damaged": 81}))
    sentence = (
        "251 of the 500 pairs that were tried have failed, 181 of them because: damaged; .* match.max_failed_share=1"
    )
    with pytest.raises(InputError, match=f"match photos: {sentence}"):
        tried.require_hope("match photos", 0.5)
    tried.require_hope("match photos", 1)


def test_a_run_that_stopped_goes_on_when_more_may_fail(
    tasks_here: None, collection: Collection, output: StageOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LEAST_TRIED", 2)
    for name in ("0.png", "1.png"):
        (Path(collection.config.root) / name).write_bytes(b"no image")
    config = MatchConfig(collections={"photos": collection.config}, num_actors=1)
    with pytest.raises(InputError, match="match photos: 2 of the 2 pairs that were tried have failed"):
        match_blocks(collection, MODEL, ROWS, output, config, title="match photos", options=AS_SUITS)
    assert output.missing() == ["block-000001", "block-000002"]
    allowed = replace(config, max_failed_share=1.0)
    match_blocks(collection, MODEL, ROWS, output, allowed, title="match photos", options=AS_SUITS)
    assert output.missing() == []


def statuses(output: StageOutput, task: str) -> list[str]:
    commit = output.commit_of(task)
    assert commit is not None
    found: list[str] = pq.read_table(pa.BufferReader(output.read(commit, "part.parquet")))["status"].to_pylist()
    return found
