"""What is written into a run when its server does not answer."""

import logging
import socket
import time

import pytest

from dhpf.pipelines.tracking.entries import log_to_run


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
