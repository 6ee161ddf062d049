"""Checkpoints registered in a real MLflow store, read back with MLflow's own client."""

import dataclasses
import os
from pathlib import Path

import pytest

from dhpf.pipelines.tracking.fetching import fetch_version
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.runs import StageRun, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import location_of


def test_a_checkpoint_is_registered_once_and_each_version_keeps_its_own(
    tracker: Tracker, checkpoints: list[Path], card: ModelCard, train_run: StageRun, tmp_path: Path
) -> None:
    versions = []
    for checkpoint in (*checkpoints, checkpoints[0]):
        versions.append(train_run.register("once", location_of(checkpoint), card))
        assert tracker.client.get_run(train_run.run_id).info.status == "RUNNING"
    assert versions == ["1", "2", "1"]
    fetched = [fetch_version(tracker, f"models:/once/{version}", tmp_path / "models") for version in ("1", "2")]
    for found, checkpoint in zip(fetched, checkpoints, strict=True):
        assert found.checkpoint.read_bytes() == checkpoint.read_bytes()
    newest = fetch_version(tracker, "models:/once@latest-trained", tmp_path / "models")
    assert (newest.name, newest.version) == ("once", "2"), "what was registered before does not take the alias back"
    assert newest.uri == "models:/once/2"


def test_a_version_has_its_card_and_can_be_searched_by_its_facts(
    tracker: Tracker, checkpoints: list[Path], card: ModelCard, train_run: StageRun, tmp_path: Path
) -> None:
    long = dataclasses.replace(card, training={"notes": "x" * 6000})
    for checkpoint, its_card in zip(checkpoints, (card, long), strict=True):
        train_run.register("carded", location_of(checkpoint), its_card)
    versions = [tracker.client.get_model_version("carded", number) for number in ("1", "2")]
    assert versions[0].description == card.text()
    assert versions[1].description == long.text()[:5000], "no longer than the database takes"
    assert versions[0].tags["dhpf.metric.val_pck"] == "0.5" and versions[0].tags["dhpf.dataset a/train"] == "f1"
    assert versions[0].tags["dhpf.code_version"].startswith("0.")
    checkpoint = fetch_version(tracker, "models:/carded/2", tmp_path / "models").checkpoint
    assert (checkpoint.parent / "MODEL_CARD.md").read_text() == long.text()


def test_stores_of_one_process_are_apart(
    checkpoints: list[Path], card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    for work, checkpoint in zip((tmp_path / "a", tmp_path / "b"), checkpoints, strict=True):
        tracker = Tracker(work)
        with workflow_run(tracker, "w", work) as parent, parent.stage("train") as run:
            run.log_config({})
            assert run.register("dhpf", location_of(checkpoint), card) == "1"
        found = fetch_version(tracker, "models:/dhpf/1", work / "models")
        assert found.checkpoint.read_bytes() == checkpoint.read_bytes()
        assert not {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"} & set(os.environ)
