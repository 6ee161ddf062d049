"""A run beside which its journal is played into MLflow."""

import logging
import socket
import time
from pathlib import Path

import pytest

from dhpf.pipelines.tracking import live, reachable
from dhpf.pipelines.tracking.runs import workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import location_of


def test_entries_are_in_mlflow_while_the_run_goes_on(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PLAYED_SECONDS", 0.05)
    with workflow_run(tracker, "w", location_of(tmp_path / "f")) as parent, parent.stage("train") as run:
        run.log_config({})
        run.log_metrics({"loss": 1.0}, step=1)
        query, deadline = f"tags.`dhpf.run` = '{run.key}'", time.monotonic() + 60
        while True:
            experiment = tracker.client.get_experiment_by_name("w")
            found = tracker.client.search_runs([experiment.experiment_id], query) if experiment else []
            if found and found[0].data.metrics == {"loss": 1.0}:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert found[0].info.status == "RUNNING"


def test_a_silent_server_does_not_hold_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes connections and never answers."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(reachable, "ANSWER_SECONDS", 1.0)
    with socket.socket() as silent, caplog.at_level(logging.WARNING):
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        tracker, began = Tracker(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}"), time.monotonic()
        with workflow_run(tracker, "w", location_of(tmp_path / "f")) as parent, parent.stage("train") as run:
            run.log_config({})
            run.log_metrics({"loss": 1.0}, step=1)
            assert time.monotonic() - began < 1
        assert time.monotonic() - began < 10
    assert caplog.text.count("does not answer") <= 2 and "`dhpf track sync` fills in" in caplog.text
