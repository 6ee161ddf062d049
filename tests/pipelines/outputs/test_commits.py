"""What a driver knows of commits, and what the next driver reads of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.manifest import CommitRecord
from dhpf.pipelines.outputs import commits
from dhpf.pipelines.outputs.commits import Commits
from dhpf.storage import FileLocation, Location, location_of

if TYPE_CHECKING:
    from infra.s3_server import Bucket

TASKS = [f"block-{number:06d}" for number in range(7)]


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Location:
    return location_of(str(tmp_path / "out") if request.param == "folder" else bucket.uri("out"))


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "GATHERED_AT_ONCE", 3)


def commit_of(task: str) -> CommitRecord:
    return CommitRecord(task, {"part": {"key": f"data/{task}", "size": 1, "sha256": "0"}}, {"reason": "a\nb ü\u2028"})


def read_by_themselves(root: Location, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by the name of each commit that is read, not gathered."""
    names: list[str] = []
    find = type(root).find

    def noting(place: Location) -> bytes | None:
        if place.name.endswith(".json"):
            names.append(place.name.removesuffix(".json"))
        return find(place)

    monkeypatch.setattr(type(root), "find", noting)
    return names


def test_the_next_driver_reads_few_objects_and_misses_no_commit(
    root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, worker = Commits(root), Commits(root)
    for task in TASKS[:5]:
        driver.note(worker.put(commit_of(task)))
    worker.put(commit_of(TASKS[5]))  # the driver ended before it heard of this one, and before it gathered two more
    assert len(driver) == 5
    read = read_by_themselves(root, monkeypatch)
    following = Commits(root)
    following.learn()
    assert dict(following) == {task: commit_of(task) for task in TASKS[:6]}
    assert sorted(read) == TASKS[3:6], "the first three were gathered"
    read.clear()
    following.learn()
    assert read == [], "a commit is read once"
    following.note(worker.put(commit_of(TASKS[6])))
    third = Commits(root)
    third.learn()
    assert list(third.in_order(TASKS)) == [commit_of(task) for task in TASKS]
    assert read == [], "what was read by itself was gathered, too"


def test_the_winner_is_what_is_noted_though_others_put_later(root: Location) -> None:
    first = Commits(root).put(CommitRecord("t", {}, {"by": "first"}))
    assert Commits(root).put(CommitRecord("t", {}, {"by": "second"})) == first
    assert Commits(root).find("t") == first
    assert Commits(root).done() == {"t"}


@pytest.mark.parametrize("junk", [b"{", b'{"other": 1}'])
def test_gathered_commits_that_are_damaged_are_named_and_read_one_by_one(
    tmp_path: Path, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    root = FileLocation(tmp_path)
    driver = Commits(root)
    for task in TASKS[:3]:
        driver.note(driver.put(commit_of(task)))
    [gathered] = (root / "gathered").entries()
    (root / "gathered" / gathered.key).put(junk)
    following = Commits(root)
    assert following.learn() == TASKS[:3]
    assert dict(following) == {task: commit_of(task) for task in TASKS[:3]}
    assert f"gathered/{gathered.key}: damaged since it was written" in caplog.text


def test_after_a_mark_the_next_commit_counts(root: Location) -> None:
    first, second, third = (CommitRecord("t", {}, {"by": name}) for name in ("first", "second", "third"))
    driver = Commits(root)
    driver.note(driver.put(first))
    for _ in range(2):
        driver.mark_damaged({"t": "a file of it is gone"})
    assert "t" not in driver and driver.done() == set() and driver.marked == {"t"} and driver.find("t") is None
    assert Commits(root).learn() == []
    driver.note(Commits(root).put(second))
    assert Commits(root).put(third) == Commits(root).find("t") == driver["t"] == second
    assert driver.marked == set() and driver.done() == {"t"}
    following = Commits(root)
    assert following.learn() == ["t"] and following["t"] == second


@pytest.mark.parametrize("junk", [b"", b"{", b'{"other": 1}', b'{"files": {}, "info": {}, "task": "t", "sha256": "0"}'])
def test_a_damaged_commit_is_marked_and_its_task_done_again(root: Location, junk: bytes) -> None:
    Commits(root).put(CommitRecord("t", {}, {"by": "first"}))
    (root / "commits" / "t.json").put(junk)
    following = Commits(root)
    assert following.learn() == [] and following.marked == {"t"}
    second = CommitRecord("t", {}, {"by": "second"})
    assert following.put(second) == following.find("t") == second
    (root / "commits" / "t~2.json").put(junk)
    assert Commits(root).put(CommitRecord("t", {}, {"by": "third"})).info == {"by": "third"}
