"""Quarantine with processes that a signal really ends, and with listed ends where only their number matters."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.manifest import CommitRecord
from dhpf.pipelines.blocks import quarantine
from dhpf.pipelines.blocks.caution import WHOLE_BLOCK, Caution, Step
from dhpf.pipelines.blocks.quarantine import (
    ENDS_WHILE_LOADING,
    FATAL_STEPS_OF_A_BLOCK,
    Quarantine,
    try_in_quarantine,
)
from dhpf.pipelines.blocks.trials import LOADING, Trial
from dhpf.pipelines.config import CollectionConfig, Resources
from dhpf.pipelines.inputs.block_source import CollectionJob
from dhpf.pipelines.inputs.collection import open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import BlockWorker, WorkerSettings
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.planning.select import All
from dhpf.storage import location_of

DeadlyImage = Callable[[Path, signal.Signals], Callable[[], list[int]]]
TASK = "block-000000"


def job_of(folder: Path) -> CollectionJob:
    with open_collection("photos", CollectionConfig(str(folder), All()), 10**6) as collection:
        [job] = collection.jobs({TASK})
    return job


def settings_of(root: Path) -> WorkerSettings:
    model = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
    return WorkerSettings(model, CorrespondenceRows(5, False, "m", "c"), str(root), Resources(), "auto")


def tried(root: Path, job: CollectionJob) -> CommitRecord:
    """What quarantine comes to in the end."""
    while (found := try_in_quarantine(settings_of(root), job, 300)) is None:
        pass
    return found


def statuses(root: Path) -> dict[tuple[str, str], str]:
    commit = StageOutput(root).commit_of(TASK)
    assert commit is not None
    rows = pq.read_table(pa.BufferReader(StageOutput(root).read(commit, "part.parquet"))).to_pylist()
    return {(row["source"], row["target"]): row["status"] for row in rows}


@pytest.mark.chaos
def test_an_image_that_ends_the_process_costs_only_its_pairs(
    four_photos: Path, tmp_path: Path, deadly_image: DeadlyImage
) -> None:
    killed = deadly_image(four_photos / "deadly.png", signal.SIGSEGV)
    tried(tmp_path / "out", job_of(four_photos))
    assert len(killed()) == 2 and os.getpid() not in killed()
    reason = "image deadly.png: ended its worker's process 2 times (SIGSEGV)"
    assert Quarantine(location_of(tmp_path / "out")).images() == {"deadly.png": reason}
    found_statuses = statuses(tmp_path / "out")
    assert len(found_statuses) == 10
    assert all(status == (reason if "deadly.png" in pair else "matched") for pair, status in found_statuses.items())


def test_one_thing_at_a_time_gives_the_same_rows(four_photos: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    tables = []
    for name, caution in (("a", Caution()), ("b", Caution(on_step=steps.append))):
        commit = BlockWorker(settings_of(tmp_path / name)).work(job_of(four_photos), caution)
        tables.append(pq.read_table(pa.BufferReader(StageOutput(tmp_path / name).read(commit, "part.parquet"))))
    assert tables[0] == tables[1]
    pairs = [Step.of_pair(place) for place in range(6)]
    assert steps == [*(Step.of_image(f"{number}.png") for number in range(4)), *pairs, WHOLE_BLOCK]


Ends = list[tuple[Step, str] | None]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Replaces the processes of the quarantine; a test fills the list with the step and the way in which each ends.

    None stands for a process that is not ended and commits the block. Each is noted with what was left out of it.
    """
    script: Ends = []

    def next_end(settings: WorkerSettings, job: CollectionJob, caution: Caution, trial: Trial, seconds: float) -> str:
        end = script.pop(0)
        if end is None:
            info = {"num_pairs": 6, "num_failed": 1, "num_described": 4, "seconds": 0.1, "left_out": str(caution.pairs)}
            StageOutput(settings.root).commit(job.task, {}, info)
            return "exit status 0"
        trial.begin(end[0])
        if end[1] == "machine lost":
            raise KeyboardInterrupt
        return end[1]

    monkeypatch.setattr(quarantine, "end_of_process", next_end)
    return script


def test_a_pair_is_left_out_only_after_the_second_crash(four_photos: Path, tmp_path: Path, ends: Ends) -> None:
    ends += [(Step.of_pair(1), "SIGSEGV"), (Step.of_image("1.png"), "SIGSEGV"), (Step.of_pair(1), "SIGABRT"), None]
    commit = tried(tmp_path, job_of(four_photos))
    assert not ends
    assert commit.info["left_out"] == '{1: "ended its worker\'s process 2 times (SIGABRT)"}'
    assert Quarantine(location_of(tmp_path)).images() == {}


def test_kills_from_outside_at_different_steps_cost_no_pair(four_photos: Path, tmp_path: Path, ends: Ends) -> None:
    steps = [*(Step.of_image(f"{number}.png") for number in range(4)), *map(Step.of_pair, range(6)), WHOLE_BLOCK]
    ends += [(step, how) for step in steps for how in ("SIGKILL, perhaps for want of memory", "SIGTERM")]
    ends += [None]
    assert tried(tmp_path, job_of(four_photos)).info["left_out"] == "{}"
    assert not ends
    assert Quarantine(location_of(tmp_path)).images() == {}


def test_want_of_memory_at_one_step_again_and_again_is_its_own_doing(
    four_photos: Path, tmp_path: Path, ends: Ends
) -> None:
    ends += [(Step.of_image("2.png"), "SIGKILL, perhaps for want of memory")] * 3 + [None]
    tried(tmp_path, job_of(four_photos))
    assert Quarantine(location_of(tmp_path)).images() == {
        "2.png": "image 2.png: ended its worker's process 3 times (SIGKILL, perhaps for want of memory)"
    }


def test_a_step_that_takes_the_whole_worker_with_it_is_found(four_photos: Path, tmp_path: Path, ends: Ends) -> None:
    ends += [(Step.of_image("2.png"), "machine lost")] * 3 + [None]
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            try_in_quarantine(settings_of(tmp_path), job_of(four_photos), 300)
    assert isinstance(try_in_quarantine(settings_of(tmp_path), job_of(four_photos), 300), CommitRecord)
    assert Quarantine(location_of(tmp_path)).images() == {
        "2.png": "image 2.png: ended its worker's process 3 times (lost together with its worker)"
    }


def test_the_end_while_the_model_loads_is_nobodys_and_stops_the_run_in_the_end(
    four_photos: Path, tmp_path: Path, ends: Ends
) -> None:
    ends += [(LOADING, "SIGSEGV")] * ENDS_WHILE_LOADING
    with pytest.raises(InputError, match="block-000000: its process ended 10 times before .* at last with SIGSEGV"):
        tried(tmp_path, job_of(four_photos))
    assert StageOutput(tmp_path).commit_of(TASK) is None


def test_a_block_that_goes_on_crashing_is_given_up_and_touches_no_image(
    four_photos: Path, tmp_path: Path, ends: Ends
) -> None:
    job = job_of(four_photos)
    for path in four_photos.iterdir():
        path.unlink()
    ends += [(Step.of_pair(number), "SIGSEGV") for number in range(FATAL_STEPS_OF_A_BLOCK) for _ in range(2)]
    tried(tmp_path, job)
    assert not ends
    assert set(statuses(tmp_path).values()) == {
        "not tried: 10 images or pairs of block-000000 each ended its worker's process 2 times (SIGSEGV)"
    }


def test_a_block_that_cannot_be_written_is_given_up(four_photos: Path, tmp_path: Path, ends: Ends) -> None:
    ends += [(WHOLE_BLOCK, "SIGSEGV")] * 2
    tried(tmp_path, job_of(four_photos))
    assert set(statuses(tmp_path).values()) == {"block-000000: ended its worker's process 2 times (SIGSEGV)"}
