"""The commit protocol of stage outputs, in every order of its steps: nothing is lost, doubled or mixed.

What is explored is the real StageOutput, in two drivers that do the same, each with a worker for each of two tasks;
any process may die between any two steps, and any answer to a write may be lost.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from dhpf.manifest import (
    MANIFEST,
    CommitRecord,
    Manifest,
    commit_line,
    commit_of_line,
    sealed_json,
)
from dhpf.pipelines.outputs import commits as commits_module
from dhpf.pipelines.outputs import store as store_module
from dhpf.pipelines.outputs.commits import COMMITS, Commits
from dhpf.pipelines.outputs.store import OBJECTS, PLAN, SCRATCH, StageOutput
from dhpf.storage.seal import unsealed
from tests.protocol.explorer import Ended, ExploredLocation, Explorer, Step

Tasks = Mapping[str, Sequence[str]]
"""The files of each task, by its name."""

BOTH: Tasks = {"t1": ("a", "b"), "t2": ("a",)}

running: list[ExploredLocation] = []
"""The process that is run just now."""


def driver(root: ExploredLocation, tasks: Tasks, take: Callable[[Step], Any]) -> Manifest | None:
    """What a stage's driver does."""
    output = StageOutput(root / "out")
    output.plan({"stage": "s", "tasks": list(tasks)})
    complete = output.manifest()
    if complete is not None:
        return complete
    done = output.committed()
    missing = [task for task in tasks if task not in done]
    take(Step("start", "", tuple(missing)))
    for task in missing:
        output.note(commit_of_line(take(Step("await", task))))
    return output.finish({"by": root.answers.name})


def worker(root: ExploredLocation, task: str, names: Sequence[str]) -> bytes:
    """What a task's worker does; every run of it gives other content, so that a mixture shows."""
    files = {name: f"{task} {name} of {root.answers.name}".encode() for name in names}
    return commit_line(StageOutput(root / "out").commit(task, files, {"run": root.answers.name}))


def process(tasks: Tasks, name: str) -> Callable[[ExploredLocation, Callable[[Step], Any]], Any]:
    def run(root: ExploredLocation, take: Callable[[Step], Any]) -> Any:
        running[:] = [root]
        task = name.partition(">")[2]
        return worker(root, task, tasks[task]) if task else driver(root, tasks, take)

    return run


def named_files(content: bytes) -> dict[str, Mapping[str, Any]]:
    """The files, by key, that a commit or a manifest names."""
    record = json.loads(content)
    return {
        f"out/{entry['key']}": entry for commit in record.get("commits", [record]) for entry in commit["files"].values()
    }


def require_files(store: Mapping[str, bytes], content: bytes) -> None:
    for key, entry in named_files(content).items():
        assert key in store, f"{key} is committed, and not there"
        assert hashlib.sha256(store[key]).hexdigest() == entry["sha256"], f"{key} is committed, and another"


def check(before: Mapping[str, bytes], name: str, step: Step, after: Mapping[str, bytes], began_late: bool) -> None:
    """What holds at every step."""
    assert not began_late, f"{name} wrote {step.key} though the output was complete when it began"
    for key, content in before.items():
        if key.endswith(f"/{MANIFEST}") or key.startswith(f"out/{COMMITS}/"):
            assert after.get(key) == content, f"{key} was written once, and has changed"
    for key, content in after.items():
        if key.endswith(f"/{MANIFEST}") or key.startswith(f"out/{COMMITS}/"):
            require_files(after, content)
    if step.key.endswith(MANIFEST):
        commits = json.loads(after[step.key])["commits"]
        assert [commit["task"] for commit in commits] == json.loads(after[f"out/{PLAN}"])["tasks"], "a task is lost"
        for commit in commits:
            assert commit == json.loads(unsealed(after[f"out/{COMMITS}/{commit['task']}.json"])), (
                "not its task's commit"
            )
            for file, entry in commit["files"].items():
                content = after[f"out/{entry['key']}"].decode()
                assert content == f"{commit['task']} {file} of {commit['info']['run']}", "runs are mixed"


def at_end(store: Mapping[str, bytes], ends: Mapping[str, Ended], undisturbed: bool) -> None:
    """What holds when all processes have come to an end."""
    manifests = [end.value for name, end in ends.items() if ">" not in name and end.error is None]
    assert manifests, "no driver came to an end"
    stored = json.loads(store[f"out/{MANIFEST}"])["commits"]
    for manifest in manifests:
        assert [vars(commit) for commit in manifest.commits] == stored, "a driver gave another manifest"
    if undisturbed:
        left = {key for key in store if key.startswith("out/data/")} - named_files(store[f"out/{MANIFEST}"]).keys()
        assert not left, "files are left that nothing names"


def explorer(tasks: Tasks, **budget: int) -> Explorer:
    never_written = tuple(f"out/{folder}" for folder in (SCRATCH, OBJECTS, "begun"))
    settled = (f"out/{PLAN}", f"out/{COMMITS}/", *never_written)
    return Explorer(partial(process, tasks), check, at_end, f"out/{MANIFEST}", settled, **budget)


@pytest.fixture(autouse=True)
def steps_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are new and the same at every run; what is read ahead in threads is read in order; two commits are many."""
    monkeypatch.setattr(uuid, "uuid4", lambda: SimpleNamespace(hex=running[0].answers.new_name()))
    for module in (commits_module, store_module):
        monkeypatch.setattr(module, "find_ahead", lambda places: [place.find() for place in places])
    monkeypatch.setattr(commits_module, "GATHERED_AT_ONCE", 2)


@pytest.mark.parametrize(
    ("drivers", "tasks", "budget"),
    [
        (2, BOTH, {}),
        (2, {"t1": ("a",)}, {"crashes": 1}),
        (1, {"t1": ("a",), "t2": ("a",)}, {"crashes": 1, "losses": 1}),
        pytest.param(2, {"t1": ("a", "b")}, {"crashes": 1, "losses": 1}, marks=pytest.mark.long),
        pytest.param(2, BOTH, {"crashes": 1}, marks=pytest.mark.long),
    ],
)
def test_in_every_order_each_task_has_one_whole_result(drivers: int, tasks: Tasks, budget: dict[str, int]) -> None:
    num_states = explorer(tasks, **budget).explore(tuple(f"driver-{number + 1}" for number in range(drivers)))
    assert num_states > 1000, "hardly anything was explored"


# -- protocols that do not hold, which the exploration must find ---------------------------------------------------


def overwriting(commits: Commits, commit: CommitRecord) -> CommitRecord:
    (commits._root / COMMITS / f"{commit.task}.json").put(sealed_json(vars(commit)))
    return commit


def looking_first(commits: Commits, commit: CommitRecord) -> CommitRecord:
    place = commits._root / COMMITS / f"{commit.task}.json"
    found = place.find()
    if found is not None:
        return CommitRecord(**json.loads(unsealed(found)))
    place.put(sealed_json(vars(commit)))
    return commit


def returning_the_losers(commits: Commits, commit: CommitRecord) -> CommitRecord:
    (commits._root / COMMITS / f"{commit.task}.json").put_if_absent(sealed_json(vars(commit)))
    return commit


class CommittingFirst(StageOutput):
    def commit(self, task: str, files: Mapping[str, bytes], info: Mapping[str, Any], **_: Any) -> CommitRecord:
        run = uuid.uuid4().hex
        keys = {name: f"data/{task}/{run}/{name}" for name in files}
        entries = {
            name: {"key": keys[name], "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        }
        commit = self._commits.put(CommitRecord(task, entries, info))
        for name, content in files.items():
            (self.root / keys[name]).put(content)
        return commit


class SharingKeys(StageOutput):
    def commit(self, task: str, files: Mapping[str, bytes], info: Mapping[str, Any], **_: Any) -> CommitRecord:
        entries = {}
        for name, content in files.items():
            key = f"data/{task}/{name}"
            (self.root / key).put(content)
            entries[name] = {"key": key, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return self._commits.put(CommitRecord(task, entries, info))


class CleaningAtTheBeginning(StageOutput):
    def committed(self) -> Mapping[str, CommitRecord]:
        commits = super().committed()
        for key in self._unreferenced(commits):
            (self.root / key).delete()
        return commits


class RemovingWhatWasUnreferenced(StageOutput):
    """Removes at the end what no commit named at the beginning."""

    def committed(self) -> Mapping[str, CommitRecord]:
        commits = super().committed()
        if not hasattr(self, "unreferenced"):
            self.unreferenced = self._unreferenced(commits)
        return commits

    def finish(self, record: Mapping[str, Any]) -> Manifest:
        manifest = super().finish(record)
        for key in self.unreferenced:
            (self.root / key).delete()
        return manifest


class TrustingFiles(StageOutput):
    """Takes a task for done where it has written files."""

    def committed(self) -> Any:
        commits = super().committed()
        return {*commits, *(entry.key.split("/")[0] for entry in (self.root / "data").entries())}

    def finish(self, record: Mapping[str, Any]) -> Manifest:
        lines = self._commits.in_order(sorted(self._commits))
        (self.root / MANIFEST).put_if_absent(lines.manifest_bytes(record))
        return Manifest(record, lines)


class FinishingTwice(StageOutput):
    def finish(self, record: Mapping[str, Any]) -> Manifest:
        lines = self._commits.in_order(self._planned())
        (self.root / MANIFEST).put(lines.manifest_bytes(record))
        return Manifest(record, lines)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (overwriting, "was written once, and has changed"),
        (looking_first, "was written once, and has changed"),
        (returning_the_losers, "not its task's commit|files are left"),
        (CommittingFirst, "is committed, and not there"),
        (SharingKeys, "is committed, and another|was written once"),
        (CleaningAtTheBeginning, "is committed, and not there"),
        (RemovingWhatWasUnreferenced, "is committed, and not there"),
        (TrustingFiles, "a task is lost|another manifest"),
        (FinishingTwice, "was written once, and has changed"),
    ],
)
def test_a_protocol_that_does_not_hold_is_found(broken: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(broken, type):
        monkeypatch.setitem(globals(), "StageOutput", broken)
    else:
        monkeypatch.setattr(Commits, "put", broken)
    with pytest.raises(AssertionError, match=what):
        explorer({"t1": ("a",), "t2": ("a",)}).explore(("driver-1", "driver-2"))
