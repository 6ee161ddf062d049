"""Runs in a real MLflow store, read back with MLflow's own client."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from mlflow.entities import Run
from PIL import Image

from dhpf.errors import InputError
from dhpf.pipelines.outputs.store import PlanConflict
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.registering import register_model
from dhpf.pipelines.tracking.runs import StageRun, log_to_run, stage_run, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import location_of

CONFIG = {"epochs": 2, "learning_rate": 0.03, "resources": {"cpus": 1.0}, "on": ("a/train",)}
PICTURE = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3)) * 4


def deciding(config: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in config.items() if name != "resources"}


def stage(tracker: Tracker, folder: Path, name: str, config: dict[str, object]) -> StageRun:
    with workflow_run(tracker, "w", folder) as parent, stage_run(tracker, "w", parent, name) as run:
        run.log_config(config, deciding(config))
    return run


def runs_of(tracker: Tracker, folder: Path) -> list[Run]:
    """The run of a workflow folder, and the runs of its stages."""
    experiment = tracker.client.get_experiment_by_name("w")
    runs = list(tracker.client.search_runs([experiment.experiment_id]))
    parents = [run for run in runs if run.data.tags.get("dhpf.folder") == str(folder.resolve())]
    ids = {parent.info.run_id for parent in parents}
    return parents + [run for run in runs if run.data.tags.get("mlflow.parentRunId") in ids]


def test_a_workflow_that_goes_on_stays_one_run(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "this" folder'
    with (
        pytest.raises(KeyboardInterrupt),
        workflow_run(tracker, "w", folder) as parent,
        stage_run(tracker, "w", parent, "train") as run,
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
    with workflow_run(tracker, "w", tmp_path / "f") as parent, stage_run(tracker, "w", parent, "evaluate") as run:
        run.log_config(CONFIG)
        run.log_metrics({"PCK@0.1 image": 0.25}, step=1)
        log_to_run(run.tracking_uri, run.run_id, {"PCK@0.1 image": 0.5}, step=2)
        run.set_tags({"dataset a/test": "abc", "number": 3})
        run.log_file(tmp_path / "notes.txt", "notes")
        run.log_picture(PICTURE, "pictures/a/loss.png")
        run.describe("what *this* is")
    stored = tracker.client.get_run(run.run_id)
    history = tracker.client.get_metric_history(run.run_id, "PCK_0.1 image")
    assert sorted((m.step, m.value) for m in history) == [(1, 0.25), (2, 0.5)]
    assert (stored.data.tags["dataset a/test"], stored.data.tags["number"]) == ("abc", "3")
    assert stored.data.tags["mlflow.note.content"] == "what *this* is"
    notes = tracker.client.download_artifacts(run.run_id, "notes/notes.txt", str(tmp_path))
    assert Path(notes).read_text() == "hello"
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


@contextlib.contextmanager
def running_server(folder: Path, uri: str) -> Iterator[subprocess.Popen[bytes]]:
    """`mlflow server` on this machine, answering; stopped when the block ends."""
    host, _, port = uri.removeprefix("http://").partition(":")
    options = ["--host", host, "--port", port, "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 's.db'}"]
    command = [sys.executable, "-m", "mlflow", "server", *options, "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # as many processes again
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder, env=environment)
    try:
        deadline = time.monotonic() + 300  # seconds on a machine at rest
        while not answers(f"{uri}/health"):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield server
    finally:
        stop(server)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """Kills the server and its workers, by pid."""
    if server.poll() is not None:
        return
    processes = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    server.wait(timeout=30)
    psutil.wait_procs(processes, timeout=30)


@pytest.mark.slow
@pytest.mark.chaos
def test_a_server_that_dies_in_a_stage_costs_only_what_it_missed(
    tmp_path: Path, card: ModelCard, free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"http://127.0.0.1:{free_port}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with running_server(tmp_path, uri) as server, caplog.at_level(logging.WARNING):
        tracker = Tracker(tmp_path / "work", uri)
        with workflow_run(tracker, "w", tmp_path / "f") as parent, stage_run(tracker, "w", parent, "train") as run:
            run.log_config(CONFIG, deciding(CONFIG))
            run.log_metrics({"loss": 2.0}, step=1)
            stop(server)
            run.log_metrics({"loss": 1.0}, step=2)
            run.set_tags({"a": "b"})
            run.log_file(Path(__file__), "notes")
            with pytest.raises(InputError, match="cannot be used"):
                register_model(tracker, run, "dhpf", Path(__file__), card)
    assert all(f"MLflow did not take {what}" in caplog.text for what in ("metrics", "tags", "test_runs.py"))
    with running_server(tmp_path, uri):
        stage(tracker, tmp_path / "f", "train", CONFIG)
        assert [m.value for m in tracker.client.get_metric_history(run.run_id, "loss")] == [2.0]
        assert {r.info.status for r in runs_of(tracker, tmp_path / "f")} == {"FINISHED"}
        assert len(runs_of(tracker, tmp_path / "f")) == 2
        files = tracker.client.list_artifacts(run.run_id)
        assert [file.path for file in files] == ["config.json"]
        assert not (tmp_path / "work" / "mlartifacts").exists(), "a server keeps its artifacts itself"


def test_a_silent_server_does_not_hold_a_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes connections and never answers."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with caplog.at_level(logging.WARNING):
            log_to_run(f"http://127.0.0.1:{silent.getsockname()[1]}", "0" * 32, {"loss": 1.0}, 1)
        assert time.monotonic() - began < 10
    assert "MLflow did not take metrics" in caplog.text


@pytest.mark.parametrize(("error", "status"), [(PlanConflict("other"), "FINISHED"), (OSError("full"), "FAILED")])
def test_a_refusal_leaves_a_finished_run_finished(
    tracker: Tracker, tmp_path: Path, error: Exception, status: str
) -> None:
    stage(tracker, tmp_path / "f", "shard", CONFIG)
    ids = []
    with pytest.raises(type(error)), workflow_run(tracker, "w", location_of(tmp_path / "f")) as parent:
        ids.append(parent.run_id)
        with stage_run(tracker, "w", parent, "shard") as run:
            run.log_config(CONFIG, deciding(CONFIG))
            ids.append(run.run_id)
            raise error
    assert [tracker.client.get_run(run_id).info.status for run_id in ids] == [status, status]
