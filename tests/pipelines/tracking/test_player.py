"""MLflow that is away, dies and comes back: in the end it has everything of a run once. The server is a real one."""

import contextlib
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from dhpf.pipelines.__main__ import main
from dhpf.pipelines.tracking import live
from dhpf.pipelines.tracking.datasets import ReadDataset
from dhpf.pipelines.tracking.journal import Journal, journal_place, journals
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.player import Player
from dhpf.pipelines.tracking.runs import DriverRun, StageRun, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import location_of
from tests.pipelines.tracking.served import running_server, stop

DATA = ReadDataset("a/train", "ab" * 32, "/data/a", 16, "training")
STEPS = 300


def run_stages(tracker: Tracker, checkpoint: Path, card: ModelCard, meanwhile: Iterator[None]) -> None:
    """A run of two stages, the second of which trains; between two of its entries something happens."""
    with workflow_run(tracker, "w", location_of(checkpoint.parent / "w")) as parent:
        with parent.stage("shard") as run:
            run.log_config({"max_pairs": 4})
            run.log_metrics({"num_pairs": 16})
        with parent.stage("train") as run:
            run.log_config({"epochs": 2, "on": ["a"]})
            run.log_datasets([DATA])
            for step in range(STEPS):
                run.log_metrics({"loss": 1 / (step + 1), "PCK@0.1": step / STEPS}, step)
                if step == STEPS // 2:
                    next(meanwhile)
            run.log_text("a,b", "tables/sets.csv")
            run.log_file(location_of(checkpoint), "checkpoint")
            run.register("dhpf", location_of(checkpoint), card)
            next(meanwhile)
        parent.describe("what it was")


def nothing() -> Iterator[None]:
    yield
    yield


def content(tracker: Tracker) -> dict[str, Any]:
    """All that MLflow has: runs, their entries and files, and the models' versions."""
    client, found = tracker.client, {}
    experiment = client.get_experiment_by_name("w")
    if experiment is None:
        return {}
    for run in client.search_runs([experiment.experiment_id]):
        run_id = run.info.run_id
        tags = {key: value for key, value in run.data.tags.items() if key not in ("dhpf.played", "dhpf.was_finished")}
        history = [m for name in run.data.metrics for m in client.get_metric_history(run_id, name)]
        found[run_id] = (
            run.info.status,
            sorted(tags.items()),
            sorted(run.data.params.items()),
            sorted((m.key, m.step, m.timestamp, m.value) for m in history),
            sorted(files(tracker, run_id, None)),
            [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs],
            [output.model_id for output in run.outputs.model_outputs] if run.outputs else [],
        )
    versions = [(str(v.version), sorted(v.tags.items())) for v in tracker.versions("dhpf")]
    return {"runs": found, "versions": versions, "models": len(client.search_logged_models([experiment.experiment_id]))}


def files(tracker: Tracker, run_id: str, folder: str | None) -> Iterator[str]:
    for file in tracker.client.list_artifacts(run_id, folder):
        if file.is_dir:
            yield from files(tracker, run_id, file.path)
        else:
            yield file.path


def assert_whole(found: dict[str, Any]) -> None:
    runs = list(found["runs"].values())
    stages = {dict(tags)["dhpf.stage"]: (status, metrics, names) for status, tags, _, metrics, names, _, _ in runs}
    assert len(runs) == 3 and {status for status, _, _ in stages.values()} == {"FINISHED"}
    assert [len(stages[stage][1]) for stage in ("workflow", "shard", "train")] == [0, 1, 2 * STEPS]
    assert stages["train"][2] == ["checkpoint/0.safetensors", "config.json", "tables/sets.csv"]
    assert sum(len(datasets) for *_, datasets, _ in runs) == 1 and sum(len(models) for *_, models in runs) == 1
    assert found["models"] == 1 and [version for version, _ in found["versions"]] == ["1"]


def synced(tracker: Tracker) -> None:
    for journal in journals(tracker.work):
        Player(tracker, journal).play()


def killed_when(tracker: Tracker, there_is: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What MLflow has after a process that fills it in was killed, as soon as something was there."""
    syncing = multiprocessing.get_context("fork").Process(target=synced, args=(tracker,))
    syncing.start()
    while syncing.is_alive() and not there_is(content(tracker)):
        time.sleep(0.01)
    syncing.kill()
    syncing.join()
    return content(tracker)


def a_run(found: dict[str, Any]) -> bool:
    return bool(found.get("runs"))


def a_metric(found: dict[str, Any]) -> bool:
    return a_run(found) and any(len(metrics) > 1 for _, _, _, metrics, *_ in found["runs"].values())


def an_artifact(found: dict[str, Any]) -> bool:
    return a_run(found) and any(names for _, _, _, _, names, *_ in found["runs"].values())


def a_model(found: dict[str, Any]) -> bool:
    return bool(found.get("models"))


def an_output(found: dict[str, Any]) -> bool:
    return a_run(found) and any(models for *_, models in found["runs"].values())


@pytest.fixture
def checkpoint(checkpoints: list[Path], tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    copy = tmp_path / "work" / "0.safetensors"
    copy.write_bytes(checkpoints[0].read_bytes())
    return copy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is given up at once, and asked again soon."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(live, "AGAIN_SECONDS", 1.0)


@pytest.mark.chaos
@pytest.mark.usefixtures("impatient")
def test_mlflow_that_was_away_or_died_has_everything_once(
    checkpoint: Path,
    card: ModelCard,
    free_port: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri, work = f"http://127.0.0.1:{free_port}", checkpoint.parent
    tracker = Tracker(work, uri)
    began = time.monotonic()
    run_stages(tracker, checkpoint, card, nothing())
    assert time.monotonic() - began < 60, "the run waits for no server"
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 2 and "the run goes on" in warnings[0] and "`dhpf track sync`" in warnings[1]

    with running_server(tmp_path, uri):
        left = [killed_when(tracker, there_is) for there_is in (a_run, a_metric, an_artifact, a_model, an_output)]
        assert [bool(found) for found in left] == [True] * 5 and not a_metric(left[0]) and not a_model(left[1])
        assert main(["track", "sync", "--work", str(work), "--tracking", uri]) == 0
        once = content(tracker)
        assert_whole(once)
        assert main(["track", "sync", "--work", str(work), "--tracking", uri]) == 0
        assert content(tracker) == once


@pytest.mark.chaos
@pytest.mark.usefixtures("impatient")
def test_a_server_that_dies_and_comes_back_in_a_run_has_everything_once(
    checkpoint: Path,
    card: ModelCard,
    free_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = f"http://127.0.0.1:{free_port}"
    monkeypatch.setattr(live, "PLAYED_SECONDS", 0.1)
    tracker = Tracker(checkpoint.parent, uri)
    with contextlib.ExitStack() as servers:
        first = servers.enter_context(running_server(tmp_path, uri))

        def dies_and_comes_back() -> Iterator[None]:
            while not content(tracker).get("runs"):
                time.sleep(0.1)
            stop(first)
            yield
            time.sleep(1)
            servers.enter_context(running_server(tmp_path, uri))
            yield

        run_stages(tracker, checkpoint, card, dies_and_comes_back())
        once = content(tracker)
        assert_whole(once)
        assert any("the run goes on" in record.getMessage() for record in caplog.records)
        synced(tracker)
        assert content(tracker) == once


def test_what_mlflow_refuses_or_somebody_deleted_does_not_stop_the_rest(
    tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with workflow_run(tracker, "w", location_of(tmp_path / "f")) as parent, parent.stage("shard") as run:
        run.log_config({})
        (tmp_path / "gone.csv").write_text("a")
        run.log_file(location_of(tmp_path / "gone.csv"), "tables")
        (tmp_path / "gone.csv").unlink()
        run.set_tags({"x" * 1000: "a name that is too long"})
        run.set_tags({"kept": "yes"})
    assert tracker.client.get_run(run.run_id).data.tags["kept"] == "yes"
    assert "does not take tables/gone.csv" in caplog.text and "does not take tags" in caplog.text
    tracker.client.delete_run(run.run_id)
    deleted = run.run_id
    with workflow_run(tracker, "w", location_of(tmp_path / "f")) as parent, parent.stage("shard") as run:
        run.log_config({})
    assert run.run_id != deleted and tracker.client.get_run(run.run_id).info.status == "FINISHED"


def test_a_store_without_its_runs_is_filled_again(tracker: Tracker, tmp_path: Path) -> None:
    with workflow_run(tracker, "w", location_of(tmp_path / "f")) as parent, parent.stage("shard") as run:
        run.log_config({"a": 1})
        run.log_metrics({"n": 1.5}, step=3)
    other = Tracker(tmp_path / "other")
    (journal,) = (j for j in journals(tracker.work) if j.identity() == parent.key)
    played = Player(other, Journal(journal.place)).play()
    assert (played.entries, played.files) == (7, 1)
    (stage,) = other.client.search_runs(
        [other.client.get_experiment_by_name("w").experiment_id], "tags.`dhpf.stage` = 'shard'"
    )
    assert stage.data.metrics == {"n": 1.5} and stage.info.status == "FINISHED"
    again = Player(other, Journal(journal.place)).play()
    assert (again.entries, again.files) == (0, 0)
    with pytest.raises(MlflowException):
        other.client.get_run(run.run_id)


def test_the_next_run_fills_in_what_earlier_ones_left(
    tracker: Tracker, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first was away from MLflow; the second was killed, which leaves no end in the journal."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder, away = location_of(tmp_path / "f"), Tracker(tracker.work, f"http://127.0.0.1:{free_port}")
    with workflow_run(away, "w", folder) as parent, parent.stage("shard") as run:
        run.log_config({"a": 1})
        run.log_metrics({"n": 1.5}, step=3)
    journal = Journal(journal_place(tracker.work, folder))
    killed = StageRun(DriverRun(journal.begin("w"), parent.key, tracker, Player(tracker, journal)), "train", "f/train")
    killed.log_config({"b": 2})
    with workflow_run(tracker, "w", folder) as parent, parent.stage("match") as run:
        run.log_config({"c": 3})
    query = f"tags.`dhpf.run` LIKE '{parent.key}%'"
    runs = tracker.client.search_runs([tracker.client.get_experiment_by_name("w").experiment_id], query)
    states = {run.data.tags["dhpf.stage"]: (run.info.status, run.data.metrics, run.data.params) for run in runs}
    assert states == {
        "workflow": ("FINISHED", {}, {}),
        "shard": ("FINISHED", {"n": 1.5}, {"a": "1"}),
        "train": ("KILLED", {}, {"b": "2"}),
        "match": ("FINISHED", {}, {"c": "3"}),
    }


def test_playing_everything_again_changes_nothing(checkpoint: Path, card: ModelCard) -> None:
    own = Tracker(checkpoint.parent, f"sqlite:///{checkpoint.parent / 'mlflow.db'}")
    run_stages(own, checkpoint, card, nothing())
    once = content(own)
    assert_whole(once)
    (journal,) = journals(own.work)
    (parent,) = (run_id for run_id, (_, tags, *_) in once["runs"].items() if dict(tags)["dhpf.stage"] == "workflow")
    own.client.delete_tag(parent, "dhpf.played")
    again = Player(own, journal).play()
    assert again.entries > STEPS and again.files == 5 and content(own) == once
