"""The actor, run in this process; and, slow, a pool of actors on Ray."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.pipelines.config import CollectionConfig, MatchConfig, Resources
from dhpf.pipelines.inputs.collection import Collection, open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching import pool
from dhpf.pipelines.matching.block_matching import AS_SUITS, WorkerSettings
from dhpf.pipelines.matching.pool import MAX_ATTEMPTS, BlockMatcher, match_blocks
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.planning.select import All
from dhpf.storage import FileLocation

MODEL = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
ROWS = CorrespondenceRows(5, False, "m", "c")


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    for number in range(4):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(skimage.data.chelsea()[number * 8 : 100 + number * 8, :100]).save(path)
    with open_collection("photos", CollectionConfig(str(path.parent), All(), max_pairs=2), 10**6) as opened:
        return opened


@pytest.fixture
def output(tmp_path: Path, collection: Collection) -> StageOutput:
    output = StageOutput(tmp_path / "out")
    output.plan({"stage": "match", "tasks": collection.tasks})
    return output


def job_of(collection: Collection, task: str) -> str:
    [job] = collection.jobs({task})
    return job.to_json()


def actor(output: StageOutput) -> BlockMatcher:
    return BlockMatcher(WorkerSettings(MODEL, ROWS, str(output.root), Resources(), "auto"))


def statuses(output: StageOutput, task: str) -> list[str]:
    commit = output.commit_of(task)
    assert commit is not None
    found: list[str] = pq.read_table(pa.BufferReader(output.read(commit, "part.parquet")))["status"].to_pylist()
    return found


def test_a_block_that_is_committed_is_not_done_again(collection: Collection, output: StageOutput) -> None:
    first = job_of(collection, "block-000000")
    commit = actor(output).match(first, 1, {})
    assert (commit.info["num_pairs"], commit.info["num_failed"]) == (2, 0)
    for path in Path(collection.config.root).iterdir():
        path.unlink()
    assert actor(output).match(first, 2, {}) == commit, "its first actor was lost with its answer"


def test_a_block_that_was_begun_goes_into_quarantine_and_is_given_up_in_the_end(
    collection: Collection, output: StageOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(
        pool, "match_in_quarantine", lambda settings, job: tried.append(job.task) or "not tried: no luck"
    )
    for task, attempt in (("block-000001", 2), ("block-000002", MAX_ATTEMPTS + 1)):
        actor(output).match(job_of(collection, task), attempt, {})
    assert tried == ["block-000001"]
    assert statuses(output, "block-000001") == ["not tried: no luck"] * 2
    assert statuses(output, "block-000002") == ["not tried: block-000002 ended its worker's process 4 times"] * 2


def test_images_under_quarantine_are_left_out(collection: Collection, output: StageOutput) -> None:
    actor(output).match(job_of(collection, "block-000000"), 1, {"0.png": "image 0.png: ended a process"})
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
    actor(output).match(job_of(collection, "block-000000"), 1, {})
    assert asked == ["put", "put_if_absent"]


@pytest.mark.slow
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
