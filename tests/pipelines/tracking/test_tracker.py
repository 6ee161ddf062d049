"""MLflow that cannot be reached, and searches of several pages."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities.model_registry import RegisteredModel
from mlflow.store.entities import PagedList

from dhpf.errors import InputError
from dhpf.pipelines.tracking.fetching import fetch_version
from dhpf.pipelines.tracking.runs import workflow_run
from dhpf.pipelines.tracking.tracker import Tracker, all_pages
from dhpf.storage import location_of


@pytest.mark.parametrize("uri", ["file:///tmp/old-store", "ftp://nowhere/x"])
def test_a_store_that_mlflow_does_not_take_is_one_sentence(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match="cannot be used"), workflow_run(Tracker(tmp_path, uri), "w", tmp_path):
        pass


def test_no_server_is_one_sentence_in_bounded_time(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://127.0.0.1:{free_port}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        fetch_version(Tracker(tmp_path), "models:/dhpf/1", tmp_path)
    assert str(caught.value).startswith(f"MLflow at {uri}: cannot be used")
    assert "or unset MLFLOW_TRACKING_URI" in str(caught.value)
    assert time.monotonic() - began < 30


def test_every_page_of_a_search_is_read(tracker: Tracker) -> None:
    for number in range(5):
        tracker.client.create_registered_model(f"paged-{number}")
    pages: list[str | None] = []

    def search(token: str | None) -> PagedList[RegisteredModel]:
        pages.append(token)
        return tracker.client.search_registered_models("name LIKE 'paged-%'", max_results=2, page_token=token)

    assert [model.name for model in all_pages(search)] == [f"paged-{number}" for number in range(5)]
    assert len(pages) == 3 and pages[0] is None


def test_a_dead_server_is_bounded_without_any_setting() -> None:
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 2
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 20


def test_work_in_a_bucket_needs_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    work = location_of("s3://bucket/work")
    with pytest.raises(InputError, match="--work s3://bucket/work: MLflow keeps .*; give its server by --tracking URI"):
        Tracker(work)
    assert Tracker(work, "http://127.0.0.1:9").artifacts is None


MAKES_A_STORE = "import sys; from dhpf.pipelines.tracking.tracker import Tracker; Tracker(sys.argv[1]).require_usable()"


@pytest.mark.chaos
def test_a_process_that_is_killed_while_it_makes_the_store_leaves_none_that_cannot_be_opened(tmp_path: Path) -> None:
    began_late = 0
    for number, seconds in enumerate((0.3, 0.6)):
        work = tmp_path / str(number)
        process = subprocess.Popen([sys.executable, "-c", MAKES_A_STORE, str(work)])
        while process.poll() is None and not list(work.glob("*mlflow.db*")):
            time.sleep(0.01)
        time.sleep(seconds)
        began_late += process.poll() is not None
        process.kill()
        process.wait()
        tracker = Tracker(work)
        tracker.require_usable()
        tracker.client.create_experiment("after")
        assert [experiment.name for experiment in tracker.client.search_experiments()] == ["after", "Default"]
    assert began_late < 2, "no process was killed while it made its store"


def test_a_store_is_made_whole_and_alone(tmp_path: Path) -> None:
    Tracker(tmp_path).require_usable()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_store_lies_where_its_name_says_whatever_the_name_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("a%20b?c#d e", "100%"):
        Tracker(tmp_path / name).require_usable()
        assert [path.name for path in (tmp_path / name).iterdir()] == ["mlflow.db"]
    databases = sorted(path.parent.name for path in tmp_path.rglob("*.db"))
    assert databases == ["100%", "a%20b?c#d e"], "no stray database"
    assert sorted(path.name for path in tmp_path.iterdir()) == databases, "nor folder"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:///rel%20.db", "sqlite:///{}/rel .db"),
        ("sqlite:////x/abs.db", "sqlite:////x/abs.db"),
        ("./mlruns", "{}/mlruns"),
        ("file:mlruns", "file://{}/mlruns"),
        ("http://h:5000", "http://h:5000"),
    ],
)
def test_a_relative_store_is_the_same_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Tracker(tmp_path, given).uri == meant.format(tmp_path)


@pytest.mark.parametrize("uri", ["http://me:hush@h:5000", "postgresql://me:hu/sh@h/db"])
def test_a_password_is_refused_and_not_repeated(tmp_path: Path, uri: str) -> None:
    with pytest.raises(
        InputError, match="--tracking '.*//...@h.*': holds credentials, .*; set MLFLOW_TRACK"
    ) as refused:
        Tracker(tmp_path, uri)
    assert "hu" not in str(refused.value)
