"""Versions fetched from a real MLflow store, and those that must not be used."""

from pathlib import Path

import pytest
from mlflow.store.model_registry import SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT

from dhpf.errors import InputError
from dhpf.pipelines.tracking.fetching import fetch_version
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.runs import StageRun
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import location_of


def test_a_checkpoint_that_was_changed_in_the_store_is_refused(
    tracker: Tracker, checkpoints: list[Path], card: ModelCard, train_run: StageRun, tmp_path: Path
) -> None:
    train_run.register("changed", location_of(checkpoints[0]), card)
    assert tracker.artifacts is not None
    stored = [p for p in tracker.artifacts.rglob("checkpoint.safetensors") if tmp_path not in p.parents]
    max(stored, key=lambda path: path.stat().st_mtime_ns).write_bytes(checkpoints[1].read_bytes())
    with pytest.raises(InputError, match="version 1 is not the one that was registered"):
        fetch_version(tracker, "models:/changed/1", tmp_path / "again")


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
        fetch_version(tracker, uri, tmp_path)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_without_the_alias_or_version_says_what_it_has(tracker: Tracker, tmp_path: Path) -> None:
    tracker.client.create_registered_model("here")
    with pytest.raises(InputError, match="models:/here@champion: here has no such version or alias; it has none"):
        fetch_version(tracker, "models:/here@champion", tmp_path)
    for _ in range(2):
        tracker.client.create_model_version("here", (tmp_path / "nothing").as_uri())
    tracker.client.set_registered_model_alias("here", "latest-trained", "2")
    for uri in ("models:/here@champion", "models:/here/9"):
        with pytest.raises(InputError, match=f"{uri}: here has no such version or alias; it has /1, /2, @latest-train"):
            fetch_version(tracker, uri, tmp_path)


def test_models_beyond_the_first_page_are_there(tracker: Tracker, tmp_path: Path) -> None:
    for number in range(SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT):
        tracker.client.create_registered_model(f"many-{number:03d}")
    tracker.client.create_registered_model("many-more")
    with pytest.raises(InputError, match="many-more has no such version or alias; it has none"):
        fetch_version(tracker, "models:/many-more@champion", tmp_path)
    with pytest.raises(InputError, match="models there: .*many-000, .*many-099, many-more"):
        fetch_version(tracker, "models:/unknown@champion", tmp_path)


def test_a_model_that_is_not_ours_is_refused(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.bin").write_bytes(b"x")
    tracker.client.create_registered_model("other")
    tracker.client.create_model_version("other", (tmp_path / "other").as_uri())
    with pytest.raises(InputError, match="version 1 holds no checkpoint of this project"):
        fetch_version(tracker, "models:/other/1", tmp_path / "models")
