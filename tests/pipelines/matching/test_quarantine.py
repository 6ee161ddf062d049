"""Quarantine with processes that a signal really ends, and with listed crashes where only their number matters."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.manifest import CommitRecord
from dhpf.pipelines.config import CollectionConfig, Resources
from dhpf.pipelines.inputs.block_source import CollectionJob
from dhpf.pipelines.inputs.collection import open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching import quarantine
from dhpf.pipelines.matching.block_matching import BlockWorker, WorkerSettings
from dhpf.pipelines.matching.describing import Caution
from dhpf.pipelines.matching.quarantine import ENDS_OF_A_BLOCK, Quarantine, match_in_quarantine, refused
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.planning.select import All
from dhpf.storage import location_of

DeadlyImage = Callable[[Path, signal.Signals], list[int]]
TASK = "block-000000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(skimage.data.chelsea()[number * 8 : 100 + number * 8, :100]).save(path)
    return tmp_path / "photos"


def job_of(folder: Path) -> CollectionJob:
    with open_collection("photos", CollectionConfig(str(folder), All()), 10**6) as collection:
        [job] = collection.jobs({TASK})
    return job


def settings_of(root: Path) -> WorkerSettings:
    model = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
    return WorkerSettings(model, CorrespondenceRows(5, False, "m", "c"), str(root), Resources(), "auto")


def statuses(root: Path) -> dict[tuple[str, str], str]:
    commit = StageOutput(root).commit_of(TASK)
    assert commit is not None
    rows = pq.read_table(pa.BufferReader(StageOutput(root).read(commit, "part.parquet"))).to_pylist()
    return {(row["source"], row["target"]): row["status"] for row in rows}


@pytest.mark.chaos
@pytest.mark.slow
def test_an_image_that_ends_the_process_costs_only_its_pairs(
    folder: Path, tmp_path: Path, deadly_image: DeadlyImage
) -> None:
    killed = deadly_image(folder / "9.png", signal.SIGSEGV)
    found = match_in_quarantine(settings_of(tmp_path / "out"), job_of(folder))
    assert isinstance(found, CommitRecord)
    assert len(killed) == 2 and os.getpid() not in killed
    reason = "image 9.png: ended its worker's process 2 times (SIGSEGV)"
    assert Quarantine(location_of(tmp_path / "out")).images() == {"9.png": reason}
    found_statuses = statuses(tmp_path / "out")
    assert len(found_statuses) == 10
    assert all(status == (reason if "9.png" in pair else "matched") for pair, status in found_statuses.items())


@pytest.mark.slow
def test_one_thing_at_a_time_gives_the_same_rows(folder: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    tables = []
    for name, caution in (("a", Caution()), ("b", Caution(on_step=steps.append))):
        commit = BlockWorker(settings_of(tmp_path / name)).match(job_of(folder), caution)
        tables.append(pq.read_table(pa.BufferReader(StageOutput(tmp_path / name).read(commit, "part.parquet"))))
    assert tables[0] == tables[1]
    assert steps == list(range(4 + 6))


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Replaces the processes of the quarantine; a test fills the list with the step at which each of them crashes.

    None stands for a process that does not crash and commits the block.
    """
    script: list[int | None] = []

    def next_end(settings: WorkerSettings, job: CollectionJob, caution: Caution) -> tuple[int, str]:
        step = script.pop(0)
        if step is None:
            info = {"num_pairs": 6, "num_failed": 1, "num_described": 4, "seconds": 0.1}
            StageOutput(settings.root).commit(job.task, {}, info)
        return step or 0, "SIGKILL"

    monkeypatch.setattr(quarantine, "_match_in_process", next_end)
    return script


def test_a_pair_is_left_out_only_after_the_second_end(folder: Path, tmp_path: Path, ends: list[int | None]) -> None:
    ends += [5, 1, 5, None]
    assert isinstance(match_in_quarantine(settings_of(tmp_path), job_of(folder)), CommitRecord)
    assert not ends
    assert Quarantine(location_of(tmp_path)).images() == {}


def test_the_end_while_the_model_loads_is_nobodys(folder: Path, tmp_path: Path, ends: list[int | None]) -> None:
    ends += [-1, -1]
    found = match_in_quarantine(settings_of(tmp_path), job_of(folder))
    assert found == "not tried: block-000000 ended its worker's process 2 times (SIGKILL)"


def test_a_block_that_goes_on_ending_is_given_up(folder: Path, tmp_path: Path, ends: list[int | None]) -> None:
    ends += [step for step in range(50) for _ in range(2)]
    assert "20 times" in str(match_in_quarantine(settings_of(tmp_path), job_of(folder)))
    assert len(ends) == 100 - ENDS_OF_A_BLOCK
    assert sorted(Quarantine(location_of(tmp_path)).images()) == [f"{n}.png" for n in range(4)]


def test_a_block_given_up_touches_no_image(folder: Path, tmp_path: Path) -> None:
    job = job_of(folder)
    for path in folder.iterdir():
        path.unlink()
    BlockWorker(settings_of(tmp_path / "out")).match(job, refused(job, "not tried"))
    assert set(statuses(tmp_path / "out").values()) == {"not tried"}
