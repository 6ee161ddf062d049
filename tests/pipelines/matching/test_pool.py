"""Blocks matched by a pool of actors on Ray."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.pipelines.config import MatchConfig
from dhpf.pipelines.inputs.collection import Collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import AS_SUITS
from dhpf.pipelines.matching.pool import match_blocks
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


def statuses(output: StageOutput, task: str) -> list[str]:
    commit = output.commit_of(task)
    assert commit is not None
    found: list[str] = pq.read_table(pa.BufferReader(output.read(commit, "part.parquet")))["status"].to_pylist()
    return found
