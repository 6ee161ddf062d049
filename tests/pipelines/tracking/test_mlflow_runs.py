"""Runs and registered models in a real MLflow store, read back with MLflow's own client."""

import contextlib
import dataclasses
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

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.matcher import Matcher
from dhpf.pipelines.tracking.mlflow_runs import StageRun, Tracker, log_to_run
from dhpf.pipelines.tracking.model_card import ModelCard, TrainingData

CONFIG = {"epochs": 2, "learning_rate": 0.03, "resources": {"cpus": 1.0}, "on": ("a/train",)}
CARD = ModelCard(ModelConfig(), CONFIG, (TrainingData("a/train", "photo_warps", 16, "f1"),), {"val_pck": 0.5})
PICTURE = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3)) * 4


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """A store in a folder whose name needs care in URIs and in filters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Tracker(tmp_path_factory.mktemp("work") / 'o\'brien "ü" 100%')


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("checkpoints") / f"{n}.safetensors" for n in range(2)]
    for path, divisor in zip(paths, (8, 4), strict=True):
        Matcher(ModelConfig(projection_divisor=divisor)).save(path)
    return paths


def stage(tracker: Tracker, folder: Path, name: str, config: dict[str, object]) -> StageRun:
    with tracker.workflow_run("w", folder) as parent, tracker.stage_run("w", parent, name) as run:
        run.log_config(config)
    return run


def runs_of(tracker: Tracker, folder: Path) -> list[Run]:
    """The run of a workflow folder and its stages' runs."""
    experiment = tracker.client.get_experiment_by_name("w")
    runs = list(tracker.client.search_runs([experiment.experiment_id]))
    parents = [run for run in runs if run.data.tags.get("dhpf.folder") == str(folder.resolve())]
    ids = {parent.info.run_id for parent in parents}
    return parents + [run for run in runs if run.data.tags.get("mlflow.parentRunId") in ids]


def test_a_workflow_that_goes_on_stays_one_run(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "this" folder'
    with (
        pytest.raises(KeyboardInterrupt),
        tracker.workflow_run("w", folder) as parent,
        tracker.stage_run("w", parent, "train") as run,
    ):
        run.log_config(CONFIG)
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


def test_another_configuration_is_another_run(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    ids = [stage(tracker, folder, "train", CONFIG | {"epochs": n}).run_id for n in (2, 3, 2)]
    assert ids[0] == ids[2] != ids[1]
    params = [tracker.client.get_run(run_id).data.params for run_id in ids[:2]]
    assert [p["epochs"] for p in params] == ["2", "3"]
    assert params[0]["resources.cpus"] == "1.0" and params[0]["on"] == '["a/train"]'


def test_what_a_stage_logs_can_be_read_back(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with tracker.workflow_run("w", tmp_path / "f") as parent, tracker.stage_run("w", parent, "evaluate") as run:
        run.log_config(CONFIG)
        run.log_metrics({"PCK@0.1 image": 0.25}, step=1)
        log_to_run(run.tracking_uri, run.run_id, {"PCK@0.1 image": 0.5}, step=2)
        run.set_tags({"dataset a/test": "abc", "number": 3})
        run.log_file(tmp_path / "notes.txt", "notes")
        run.log_picture(PICTURE, "pictures/a/loss.png")
    stored = tracker.client.get_run(run.run_id)
    history = tracker.client.get_metric_history(run.run_id, "PCK_0.1 image")
    assert sorted((m.step, m.value) for m in history) == [(1, 0.25), (2, 0.5)]
    assert (stored.data.tags["dataset a/test"], stored.data.tags["number"]) == ("abc", "3")
    notes = tracker.client.download_artifacts(run.run_id, "notes/notes.txt", str(tmp_path))
    assert Path(notes).read_text() == "hello"
    picture = tracker.client.download_artifacts(run.run_id, "pictures/a/loss.png", str(tmp_path))
    assert (np.asarray(Image.open(picture).convert("RGB")) == PICTURE).all()


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


def test_a_checkpoint_is_registered_once_and_each_version_keeps_its_own(
    tracker: Tracker, checkpoints: list[Path], tmp_path: Path
) -> None:
    versions = []
    with tracker.workflow_run("w", tmp_path / "f") as parent, tracker.stage_run("w", parent, "train") as run:
        run.log_config(CONFIG)
        for checkpoint in (*checkpoints, checkpoints[0]):
            versions.append(tracker.register(run, "once", checkpoint, CARD))
            assert tracker.client.get_run(run.run_id).info.status == "RUNNING"
    assert versions == ["1", "2", "1"]
    fetched = [tracker.fetch(f"models:/once/{version}", tmp_path / "models") for version in ("1", "2")]
    for found, checkpoint in zip(fetched, checkpoints, strict=True):
        assert found.checkpoint.read_bytes() == checkpoint.read_bytes()
    newest = tracker.fetch("models:/once@latest-trained", tmp_path / "models")
    assert (newest.name, newest.version) == ("once", "2"), "what was registered before does not take the alias back"
    assert newest.uri == "models:/once/2"


def test_a_version_has_its_card_and_can_be_searched_by_its_facts(
    tracker: Tracker, checkpoints: list[Path], tmp_path: Path
) -> None:
    long = dataclasses.replace(CARD, training={"notes": "x" * 6000})
    with tracker.workflow_run("w", tmp_path / "f") as parent, tracker.stage_run("w", parent, "train") as run:
        run.log_config(CONFIG)
        for checkpoint, card in zip(checkpoints, (CARD, long), strict=True):
            tracker.register(run, "carded", checkpoint, card)
    versions = [tracker.client.get_model_version("carded", number) for number in ("1", "2")]
    assert versions[0].description == CARD.text()
    assert versions[1].description == long.text()[:5000], "no longer than the database takes"
    assert versions[0].tags["dhpf.metric.val_pck"] == "0.5" and versions[0].tags["dhpf.dataset a/train"] == "f1"
    assert versions[0].tags["dhpf.code_version"].startswith("0.")
    checkpoint = tracker.fetch("models:/carded/2", tmp_path / "models").checkpoint
    assert (checkpoint.parent / "MODEL_CARD.md").read_text() == long.text()


def test_a_checkpoint_that_was_changed_in_the_store_is_refused(
    tracker: Tracker, checkpoints: list[Path], tmp_path: Path
) -> None:
    with tracker.workflow_run("w", tmp_path / "f") as parent, tracker.stage_run("w", parent, "train") as run:
        run.log_config(CONFIG)
        tracker.register(run, "changed", checkpoints[0], CARD)
    stored = [p for p in tracker.work.rglob("checkpoint.safetensors") if tmp_path not in p.parents]
    max(stored, key=lambda path: path.stat().st_mtime_ns).write_bytes(checkpoints[1].read_bytes())
    with pytest.raises(InputError, match="version 1 is not the one that was registered"):
        tracker.fetch("models:/changed/1", tmp_path / "again")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("models:/nothing@latest-trained", "not in the registry"),
        ("models:/known@nobody", "models there: "),
        ("models:/known/99", "not in the registry"),
        ("models:/known", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("models:/known/../../x", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("models:/", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(tracker: Tracker, tmp_path: Path, uri: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        tracker.fetch(uri, tmp_path)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_stores_of_one_process_are_apart(
    checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    for work, checkpoint in zip((tmp_path / "a", tmp_path / "b"), checkpoints, strict=True):
        tracker = Tracker(work)
        with tracker.workflow_run("w", work) as parent, tracker.stage_run("w", parent, "train") as run:
            run.log_config(CONFIG)
            assert tracker.register(run, "dhpf", checkpoint, CARD) == "1"
        found = tracker.fetch("models:/dhpf/1", work / "models")
        assert found.checkpoint.read_bytes() == checkpoint.read_bytes()
        assert not {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"} & set(os.environ)


def test_a_model_that_is_not_ours_is_refused(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.bin").write_bytes(b"x")
    tracker.client.create_registered_model("other")
    tracker.client.create_model_version("other", (tmp_path / "other").as_uri())
    with pytest.raises(InputError, match="version 1 holds no checkpoint of this project"):
        tracker.fetch("models:/other/1", tmp_path / "models")


@pytest.mark.parametrize("uri", ["file:///tmp/old-store", "ftp://nowhere/x"])
def test_a_store_that_mlflow_does_not_take_is_one_sentence(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match="cannot be used"), Tracker(tmp_path, uri).workflow_run("w", tmp_path):
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_no_server_is_one_sentence_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    began = time.monotonic()
    with pytest.raises(InputError) as caught, Tracker(tmp_path).workflow_run("w", tmp_path):
        pass
    assert str(caught.value).startswith(f"MLflow at {uri}: cannot be used")
    assert "or unset MLFLOW_TRACKING_URI" in str(caught.value)
    with pytest.raises(InputError, match="cannot be used"):
        Tracker(tmp_path).fetch("models:/dhpf/1", tmp_path)
    assert time.monotonic() - began < 30


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


def test_a_dead_server_is_bounded_without_any_setting() -> None:
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 2
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 20


@contextlib.contextmanager
def running_server(folder: Path, uri: str) -> Iterator[subprocess.Popen[bytes]]:
    """`mlflow server` on this machine, answering; stopped when the block ends."""
    host, _, port = uri.removeprefix("http://").partition(":")
    options = ["--host", host, "--port", port, "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 's.db'}"]
    command = [sys.executable, "-m", "mlflow", "server", *options, "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        deadline = time.monotonic() + 120
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with running_server(tmp_path, uri) as server, caplog.at_level(logging.WARNING):
        tracker = Tracker(tmp_path / "work", uri)
        with tracker.workflow_run("w", tmp_path / "f") as parent, tracker.stage_run("w", parent, "train") as run:
            run.log_config(CONFIG)
            run.log_metrics({"loss": 2.0}, step=1)
            stop(server)
            run.log_metrics({"loss": 1.0}, step=2)
            run.set_tags({"a": "b"})
            run.log_file(Path(__file__), "notes")
            with pytest.raises(InputError, match="cannot be used"):
                tracker.register(run, "dhpf", Path(__file__), CARD)
    assert all(f"MLflow did not take {what}" in caplog.text for what in ("metrics", "tags", "test_tracking.py"))
    with running_server(tmp_path, uri):
        stage(tracker, tmp_path / "f", "train", CONFIG)
        assert [m.value for m in tracker.client.get_metric_history(run.run_id, "loss")] == [2.0]
        assert {r.info.status for r in runs_of(tracker, tmp_path / "f")} == {"FINISHED"}
        assert len(runs_of(tracker, tmp_path / "f")) == 2
        files = tracker.client.list_artifacts(run.run_id)
        assert [file.path for file in files] == ["config.json"]
        assert not (tmp_path / "work" / "mlartifacts").exists(), "a server keeps its artifacts itself"
