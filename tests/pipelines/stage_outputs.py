"""Reads, for tests, manifests, rows and the history of a training from a workflow's folder."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete output."""
    content: dict[str, Any] = json.loads((folder / "MANIFEST.json").read_bytes())
    return content


def parts(folder: Path) -> list[dict[str, Any]]:
    """All rows of an output's tables."""
    rows: list[dict[str, Any]] = []
    for commit in manifest(folder)["commits"]:
        if commit["task"] != "rejects":
            rows += pq.read_table(folder / commit["files"]["part.parquet"]["key"]).to_pylist()
    return rows


def history(train_folder: Path) -> list[dict[str, Any]]:
    """The history of a training, an entry per epoch."""
    progress = json.loads(next(train_folder.glob("data/model/*/progress.json")).read_bytes())
    entries: list[dict[str, Any]] = progress["history"]
    return entries


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 240) -> None:
    """Waits until the condition holds; fails if the process ends first."""
    deadline = time.time() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before the kill"
        assert time.time() < deadline, "waited in vain"
        time.sleep(0.1)
