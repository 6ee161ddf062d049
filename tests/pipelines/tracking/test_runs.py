"""Runs in a real MLflow store, read back with MLflow's own client."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Run
from PIL import Image

from dhpf.pipelines.outputs.store import PlanConflict
from dhpf.pipelines.tracking.run_log import RunLog
from dhpf.pipelines.tracking.runs import StageRun, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import location_of

CONFIG = {"epochs": 2, "learning_rate": 0.03, "resources": {"cpus": 1.0}, "on": ("a/train",)}
PICTURE = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3)) * 4


def deciding(config: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in config.items() if name != "resources"}


def stage(tracker: Tracker, folder: Path, name: str, config: dict[str, object]) -> StageRun:
    with workflow_run(tracker, "w", folder) as parent, parent.stage(name) as run:
        run.log_config(config, deciding(config))
    return run


def runs_of(tracker: Tracker, folder: Path) -> list[Run]:
    """The run of a workflow folder, and the runs of its stages."""
    experiment = tracker.client.get_experiment_by_name("w")
    runs = list(tracker.client.search_runs([experiment.experiment_id]))
    parents = [run for run in runs if run.data.tags.get("dhpf.folder") == str(folder.resolve())]
    ids = {parent.info.run_id for parent in parents}
    return parents + [run for run in runs if run.data.tags.get("mlflow.parentRunId") in ids]


def test_mlflow_is_told_no_control_characters(tracker: Tracker, tmp_path: Path) -> None:
    hostile, folder = "\x1b[2Ja\u202e", tmp_path / "w\x1b"
    with workflow_run(tracker, "w", location_of(folder)) as parent, parent.stage("train") as run:
        run.log_config(CONFIG | {"note": hostile})
        run.set_tags({"tag": hostile})
        run.describe(hostile)
        run.log_text(hostile, "t/a.csv")
    told, above = (tracker.client.get_run(one.run_id) for one in (run, parent))
    assert told.data.params["note"] == told.data.tags["tag"] == "\\u001b[2Ja\\u202e"
    path = tracker.client.download_artifacts(run.run_id, "t/a.csv", str(tmp_path))
    everything = [
        Path(path).read_text(),
        *told.data.params.values(),
        *told.data.tags.values(),
        *above.data.tags.values(),
    ]
    assert len([text for text in everything if "\\u001b" in text]) >= 5
    assert [text for text in everything if set("\x1b\u202e") & set(text)] == []


def test_a_workflow_that_goes_on_stays_one_run(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "this" folder'
    with (
        pytest.raises(KeyboardInterrupt),
        workflow_run(tracker, "w", folder) as parent,
        parent.stage("train") as run,
    ):
        run.log_config(CONFIG, deciding(CONFIG))
        raise KeyboardInterrupt
    assert {run.info.status for run in runs_of(tracker, folder)} == {"FAILED"}
    first = {run.info.run_id for run in runs_of(tracker, folder)}
    stage(tracker, folder, "train", CONFIG | {"resources": {"cpus": 4.0}})
    again = runs_of(tracker, folder)
    assert {run.info.run_id for run in again} == first and len(again) == 2
    assert {run.info.status for run in again} == {"FINISHED"}
    assert all(run.data.tags["dhpf.code_version"].startswith("0.") for run in again)
    stage(tracker, tmp_path / "other", "train", CONFIG)
    assert not first & {run.info.run_id for run in runs_of(tracker, tmp_path / "other")}


def test_what_a_killed_driver_left_running_is_closed(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    killed = [stage(tracker, folder, name, CONFIG).run_id for name in ("shard", "train")]
    for run in runs_of(tracker, folder):
        tracker.client.update_run(run.info.run_id, status="RUNNING")
    stage(tracker, folder, "shard", CONFIG)
    status = {run.info.run_id: run.info.status for run in runs_of(tracker, folder)}
    assert [status[run] for run in killed] == ["FINISHED", "KILLED"] and "RUNNING" not in status.values()


def test_another_configuration_is_another_run(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    ids = [stage(tracker, folder, "train", CONFIG | {"epochs": n}).run_id for n in (2, 3, 2)]
    assert ids[0] == ids[2] != ids[1]
    params = [tracker.client.get_run(run_id).data.params for run_id in ids[:2]]
    assert [p["epochs"] for p in params] == ["2", "3"]
    assert params[0]["resources.cpus"] == "1.0" and params[0]["on"] == '["a/train"]'


def test_what_a_stage_logs_can_be_read_back(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with workflow_run(tracker, "w", tmp_path / "f") as parent, parent.stage("evaluate") as run:
        run.log_config(CONFIG)
        run.log_metrics({"PCK@0.1 image": 0.25}, step=1)
        in_a_worker: RunLog = pickle.loads(pickle.dumps(run.for_workers()))
        in_a_worker.log_metrics({"PCK@0.1 image": 0.5}, step=2)
        in_a_worker.log_text("seen", "notes/worker.txt")
        run.set_tags({"dataset a/test": "abc", "number": 3})
        run.log_file(location_of(tmp_path / "notes.txt"), "notes")
        run.log_picture(PICTURE, "pictures/a/loss.png")
        run.describe("what *this* is")
    stored = tracker.client.get_run(run.run_id)
    history = tracker.client.get_metric_history(run.run_id, "PCK_0.1 image")
    assert sorted((m.step, m.value) for m in history) == [(1, 0.25), (2, 0.5)]
    assert (stored.data.tags["dataset a/test"], stored.data.tags["number"]) == ("abc", "3")
    assert stored.data.tags["mlflow.note.content"] == "what *this* is"
    notes = tracker.client.download_artifacts(run.run_id, "notes/notes.txt", str(tmp_path))
    assert Path(notes).read_text() == "hello"
    seen = tracker.client.download_artifacts(run.run_id, "notes/worker.txt", str(tmp_path))
    assert Path(seen).read_text() == "seen"
    picture = tracker.client.download_artifacts(run.run_id, "pictures/a/loss.png", str(tmp_path))
    assert (np.asarray(Image.open(picture).convert("RGB")) == PICTURE).all()
    folder = run.picture_folder()
    assert folder is not None and (Path(folder) / "a" / "loss.png").is_file()
    assert stage(tracker, tmp_path / "f", "shard", CONFIG).picture_folder() is None


def test_everything_lies_in_the_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("default", "set"):
        elsewhere = tmp_path / f"{name}-cwd"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        work = tmp_path / name
        if name == "set":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mine.db'}")
        stage(Tracker(work), work, "shard", CONFIG)
        assert list((work / "mlartifacts").rglob("config.json"))
        assert (work / "mlflow.db").exists() == (name == "default")
        assert not list(elsewhere.iterdir())
    assert (tmp_path / "mine.db").exists()


@pytest.mark.parametrize(("error", "status"), [(PlanConflict("other"), "FINISHED"), (OSError("full"), "FAILED")])
def test_a_refusal_leaves_a_finished_run_finished(
    tracker: Tracker, tmp_path: Path, error: Exception, status: str
) -> None:
    stage(tracker, tmp_path / "f", "shard", CONFIG)
    ids = []
    with pytest.raises(type(error)), workflow_run(tracker, "w", location_of(tmp_path / "f")) as parent:
        ids.append(parent.run_id)
        with parent.stage("shard") as run:
            run.log_config(CONFIG, deciding(CONFIG))
            ids.append(run.run_id)
            raise error
    assert [tracker.client.get_run(run_id).info.status for run_id in ids] == [status, status]


def test_a_damaged_store_is_not_the_stages_fate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"no database" * 999)
    run = stage(Tracker(tmp_path), tmp_path / "f", "train", CONFIG)
    assert run.key and database.read_bytes() == b"no database" * 999
    (said,) = [line for line in caplog.messages if "the run goes on" in line and "move the file away" in line]
    assert f"MLflow's store {database}: cannot be used" in said and "Traceback" not in caplog.text
    database.rename(tmp_path / "damaged")
    sync = [
        sys.executable,
        "-m",
        "dhpf.pipelines",
        "track",
        "sync",
        "--work",
        str(tmp_path),
    ]  # MLflow keeps stores open
    done = subprocess.run(sync, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and re.search(r"^f: [1-9]\d* entries", done.stdout, re.M), done.stderr


def test_a_deleted_experiment_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(tmp_path)
    stage(tracker, tmp_path / "f", "train", CONFIG)
    first = {run.info.run_id for run in runs_of(tracker, tmp_path / "f")}
    tracker.client.delete_experiment(tracker.client.get_experiment_by_name("w").experiment_id)
    stage(tracker, tmp_path / "f", "train", CONFIG)
    assert {run.info.run_id for run in runs_of(tracker, tmp_path / "f")} == first
    assert "experiment w was deleted; it is restored" in caplog.text


def test_no_name_of_a_metric_costs_another(tracker: Tracker, tmp_path: Path) -> None:
    names = ("../up", "/root", "a//b", "a/./b", "l" * 999, "$\\foo$", "\x1b[31m", "", "ü/é", "good")
    with workflow_run(tracker, "w", location_of(tmp_path / "n")) as parent, parent.stage("train") as run:
        run.log_config(CONFIG)
        run.log_metrics({name: 1.0 for name in names})
        run.writer.write("metrics", run.key, {"metrics": {"not//clean": 1.0, "whole": 2.0}, "step": 0})
        metrics = tracker.client.get_run(run.run_id).data.metrics
    assert {"__/up", "root", "a/b", "a/_/b", "l" * 250, "__foo_", "__31m", "_", "ü/é", "good", "whole"} >= set(metrics)
    assert len(metrics) >= 10 and metrics["whole"] == 2.0
