from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.manifest import Damaged
from dhpf.pipelines.outputs.store import PlanConflict, StageOutput, remove_outputs
from dhpf.storage import FileLocation, Location, location_of

if TYPE_CHECKING:
    from infra.s3_server import Bucket

PLAN = {"stage": "match", "model": {"backbone": "a"}, "tasks": ["t1", "t2"]}


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Location:
    return location_of(str(tmp_path / "out") if request.param == "folder" else bucket.uri("out"))


def keys(place: Location) -> list[str]:
    return [entry.key for entry in place.entries(hidden=True)]


def test_a_finished_output_is_whole(root: Location) -> None:
    output = StageOutput(root)
    output.plan(PLAN)
    assert output.missing() == ["t1", "t2"]
    output.commit("t2", {"part": b"two"}, {"rows": 2})
    assert output.missing() == ["t1"]
    with pytest.raises(RuntimeError, match="1 tasks are not done"):
        output.finish({})
    assert output.manifest() is None
    output.commit("t1", {"part": b"one"}, {"rows": 1})
    manifest = output.finish({"stage": "match"})
    assert [commit.task for commit in manifest.commits] == ["t1", "t2"]
    assert [output.read(commit, "part") for commit in manifest.commits] == [b"one", b"two"]


def test_the_first_result_counts_and_the_other_is_removed(root: Location) -> None:
    output = StageOutput(root)
    output.plan({"stage": "s", "tasks": ["t"]})
    first = output.commit("t", {"part": b"first"}, {})
    second = output.commit("t", {"part": b"second"}, {})
    assert first == second
    assert len(keys(root / "data" / "t")) == 2
    manifest = output.finish({})
    assert output.read(manifest.commits[0], "part") == b"first"
    assert len(keys(root / "data" / "t")) == 1


def test_what_was_needed_on_the_way_is_gone_at_the_end(root: Location) -> None:
    output = StageOutput(root)
    output.plan({"stage": "s", "tasks": ["t"]})
    (root / "begun" / "run" / "t.1").put(b"of version 0.1")
    (root / "gathered" / "some").put(b"")
    (output.scratch / "pairs.arrow").put(b"")
    assert output.commit_of("t") is None
    committed = output.commit("t", {"part": b"1"}, {})
    assert output.commit_of("t") == committed
    output.finish({})
    assert sorted({key.split("/")[0] for key in keys(root)}) == ["MANIFEST.json", "PLAN.json", "commits", "data"]
    if isinstance(root, FileLocation):
        assert len(list(root.path.iterdir())) == 4, "no empty folder is left"


def test_other_settings_are_refused_by_name(root: Location) -> None:
    output = StageOutput(root)
    output.plan(PLAN)
    output.plan(PLAN)
    with pytest.raises(PlanConflict, match=r'model.backbone: "a" -> "b".*--restart match'):
        output.plan(PLAN | {"model": {"backbone": "b"}})


BLOCKS = [f"block-{number:06d}" for number in range(30_000)]


@pytest.mark.parametrize("tasks", [BLOCKS, [*BLOCKS, "rejects"], ["rejects", *BLOCKS], BLOCKS[1:], [], ["model"]])
def test_a_plan_stays_small_and_its_tasks_are_the_same(tmp_path: Path, tasks: list[str]) -> None:
    output = StageOutput(tmp_path)
    output.plan({"stage": "match", "tasks": tasks})
    assert output.missing() == tasks
    assert (tmp_path / "PLAN.json").stat().st_size < 200 or tasks[:1] != BLOCKS[:1]
    output.plan({"stage": "match", "tasks": tasks})
    with pytest.raises(PlanConflict, match="tasks"):
        output.plan({"stage": "match", "tasks": [*tasks, "another"]})


def test_a_plan_that_lists_its_tasks_goes_on(tmp_path: Path) -> None:
    plan = {"stage": "match", "tasks": ["block-000000", "block-000001", "rejects"]}
    (tmp_path / "PLAN.json").write_text(json.dumps(plan))
    output = StageOutput(tmp_path)
    output.plan(plan)
    for task in output.missing():
        output.commit(task, {"part": b"1"}, {})
    assert [commit.task for commit in output.finish({}).commits] == plan["tasks"]
    with pytest.raises(PlanConflict, match="tasks.blocks: 2 -> 1"):
        output.plan(plan | {"tasks": ["block-000000", "rejects"]})


def test_what_a_driver_was_told_of_is_neither_listed_nor_read_again(
    root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = StageOutput(root)
    output.plan(PLAN)
    assert dict(output.committed()) == {}
    for task in PLAN["tasks"]:
        output.note(StageOutput(root).commit(task, {"part": task.encode()}, {}))
    listed: list[str] = []
    entries = type(root).entries

    def listing(place: Location, **options: bool) -> object:
        listed.append(place.name)
        return entries(place, **options)

    monkeypatch.setattr(type(root), "entries", listing)
    assert output.missing() == []
    manifest = output.finish({"counts": (1, 2)})
    assert "commits" not in listed and listed.count("data") == 1
    stored = output.manifest()
    assert stored is not None and (list(manifest.commits), manifest.record) == (list(stored.commits), stored.record)
    assert manifest.record == {"counts": [1, 2]}


def test_a_stray_file_beside_the_data_costs_no_data(root: Location) -> None:
    output = StageOutput(root)
    output.plan({"stage": "s", "tasks": ["t"]})
    commit = output.commit("t", {"part": b"1"}, {})
    for folder in ("data", "data/t"):
        (root / folder / ".nfs01").put(b"")
    manifest = output.finish({})
    assert output.read(manifest.commits[0], "part") == output.read(commit, "part") == b"1"


def test_damage_is_noticed(root: Location) -> None:
    output = StageOutput(root)
    output.plan({"stage": "s", "tasks": ["t"]})
    commit = output.commit("t", {"part": b"content"}, {})
    place = output.location(commit, "part")
    place.put(b"contenT")
    with pytest.raises(InputError, match="damaged since it was written"):
        output.read(commit, "part")
    place.put(b"con")
    with pytest.raises(InputError, match="3 bytes instead of 7"):
        output.read(commit, "part")


def test_the_digest_depends_on_content_alone(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        output = StageOutput(tmp_path / name)
        output.plan({"stage": "s", "tasks": ["t"]})
        output.commit("t", {"part": b"same"}, {"seconds": time.time()})
        digests.add(output.finish({}).digest())
    assert len(digests) == 1


RACER = """
import sys
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.storage import location_of
while not (location_of(sys.argv[1]) / "go").exists():
    pass
record = StageOutput(sys.argv[1]).commit("t", {"part": sys.argv[2].encode()}, {"by": sys.argv[2]})
print(record.info["by"])
"""


def test_of_racing_processes_one_wins(root: Location) -> None:
    StageOutput(root).plan({"stage": "s", "tasks": ["t"]})
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(root), str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    (root / "go").put(b"")
    answers = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert len(answers) == 1
    manifest = StageOutput(root).finish({})
    assert StageOutput(root).read(manifest.commits[0], "part").decode() in answers


SLOW_WRITER = """
import sys
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.storage import BucketLocation, FileLocation
def stop(*_):
    print("written", flush=True)
    import time; time.sleep(60)
FileLocation.put_if_absent = BucketLocation.put_if_absent = stop
StageOutput(sys.argv[1]).commit("t", {"part": b"half"}, {})
"""


@pytest.mark.chaos
def test_a_task_killed_before_its_commit_leaves_nothing_that_counts(root: Location) -> None:
    output = StageOutput(root)
    output.plan({"stage": "s", "tasks": ["t"]})
    writer = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline().strip() == "written"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(timeout=10)
    assert output.missing() == ["t"]
    output.commit("t", {"part": b"whole"}, {})
    manifest = output.finish({})
    assert output.read(manifest.commits[0], "part") == b"whole"
    assert len(keys(root / "data" / "t")) == 1
    assert json.loads((root / "MANIFEST.json").read())["commits"][0]["task"] == "t"


FULL_DISK = """
import resource, sys
from dhpf.errors import InputError
from dhpf.pipelines.outputs.store import StageOutput
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    StageOutput(sys.argv[1]).commit("t", {"small": b"1", "large": bytes(5000)}, {})
except InputError as error:
    print(error)
"""


def test_a_file_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    output = StageOutput(tmp_path)
    output.plan({"stage": "s", "tasks": ["t"]})
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "large: cannot be written (File too large); make room" in done.stdout
    assert output.missing() == ["t"]
    assert [path.name for path in tmp_path.glob("data/t/*/*")] == ["small"]


ENDLESS_WRITER = """
import sys
from dhpf.pipelines.outputs.store import StageOutput
output = StageOutput(sys.argv[1])
print("ready", flush=True)
while True:
    output.commit("t", {"part": bytes(range(256)) * 40_000}, {})
"""


@pytest.mark.chaos
def test_a_file_under_its_final_name_is_whole_whenever_the_writer_is_killed(tmp_path: Path) -> None:
    whole = bytes(range(256)) * 40_000
    torn = 0
    for number in range(4):
        root = tmp_path / str(number)
        StageOutput(root).plan({"stage": "s", "tasks": ["t"]})
        writer = subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, str(root)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None and writer.stdout.readline().strip() == "ready"
        deadline = time.time() + 30
        while not list(root.glob("data/t/*/.part.*")) and time.time() < deadline:
            pass
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(timeout=10)
        torn += len(list(root.glob("data/t/*/.part.*")))
        assert all(path.read_bytes() == whole for path in root.glob("data/t/*/part"))
        output = StageOutput(root)
        assert all(output.read(commit, "part") == whole for commit in output.committed().values())
        output.commit("t", {"part": whole}, {})
        output.finish({})
        assert [path.name for path in root.glob("data/t/*/*")] == ["part"]
        assert len(list(root.glob("data/t/*"))) == 1
    assert torn, "no writer was killed in the middle of a file, this test shows nothing"


@pytest.mark.parametrize("content", [None, b"conten", b"contenT"])
def test_what_is_damaged_before_the_end_is_done_again_and_nothing_else(root: Location, content: bytes | None) -> None:
    plan = {"stage": "s", "tasks": ["t1", "t2"]}
    output = StageOutput(root)
    output.plan(plan)
    whole = output.commit("t1", {"part": b"other"}, {})
    place = output.location(output.commit("t2", {"part": b"content"}, {}), "part")
    place.delete() if content is None else place.put(content)
    following = StageOutput(root)
    assert following.committed().keys() == {"t1"} and following.missing() == ["t2"]
    following.note(StageOutput(root).commit("t2", {"part": b"again"}, {}))
    manifest = following.finish({})
    assert [following.read(commit, "part") for commit in manifest.commits] == [b"other", b"again"]
    assert manifest.commits[0] == whole and keys(root / "commits") == [
        "t1.json",
        "t2.json",
        "t2~1.damaged",
        "t2~2.json",
    ]
    assert len(keys(root / "data")) == 2
    stored = StageOutput(root).manifest()
    assert stored is not None and list(stored.commits) == list(manifest.commits)


def test_nothing_is_complete_without_its_data(root: Location) -> None:
    output = StageOutput(root)
    output.plan({"stage": "s", "tasks": ["t"]})
    commit = output.commit("t", {"part": b"content"}, {})
    output.note(commit)
    output.location(commit, "part").delete()
    with pytest.raises(InputError, match="files of 1 tasks were damaged .* the first of t; the same command"):
        output.finish({})
    assert output.manifest() is None
    following = StageOutput(root)
    assert following.missing() == ["t"]
    following.note(following.commit("t", {"part": b"content"}, {}))
    assert following.read(following.finish({}).commits[0], "part") == b"content"


def test_a_driver_that_goes_on_leaves_shards_to_their_readers(tmp_path: Path) -> None:
    output = StageOutput(tmp_path)
    output.plan({"stage": "s", "tasks": ["t"]})
    output.location(output.commit("t", {"shard.tar": b"content"}, {}), "shard.tar").put(b"contenT")
    assert StageOutput(tmp_path).committed().keys() == {"t"}


@pytest.mark.parametrize("name", ["PLAN.json", "MANIFEST.json"])
@pytest.mark.parametrize("junk", [b"", b"{", b'{"other": 1}'])
def test_damaged_records_are_named(root: Location, name: str, junk: bytes) -> None:
    output = StageOutput(root)
    plan = {"stage": "s", "tasks": ["t"]}
    output.plan(plan)
    output.commit("t", {"part": b"content"}, {})
    output.finish({})
    (root / name).put(junk)
    with pytest.raises(InputError, match=f"{name}.*: damaged|holds an earlier s"):
        output.plan(plan)
        output.manifest()


@pytest.mark.parametrize("name", ["PLAN.json", "MANIFEST.json", "commits/t.json"])
def test_one_changed_digit_of_a_record_is_noticed(root: Location, name: str) -> None:
    output = StageOutput(root)
    plan = {"stage": "s", "size": 11, "tasks": ["t"]}
    output.plan(plan)
    output.commit("t", {"part": b"content"}, {"num_pairs": 11})
    output.finish({"num_pairs": 11})
    content = (root / name).read()
    (root / name).put(content.replace(b"11", b"12", 1))
    if name == "commits/t.json":
        assert StageOutput(root).missing() == ["t"] or StageOutput(root).commit_of("t") is None
        return
    with pytest.raises(InputError, match=f"{name}.*: damaged since it was written"):
        output.plan(plan | {"size": 12}) if name == "PLAN.json" else output.manifest()


def test_a_damaged_plan_is_put_again_where_what_is_left_of_it_shows_that_it_was_the_same(root: Location) -> None:
    plan = {"stage": "s", "size": 11, "tasks": ["t"]}
    StageOutput(root).plan(plan)
    StageOutput(root).commit("t", {"part": b"content"}, {})
    whole, place = (root / "PLAN.json").read(), root / "PLAN.json"
    for at in range(0, len(whole), 7):
        place.put(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        output = StageOutput(root)
        output.require_settings({"stage": "s"})
        output.plan(plan)
        assert place.read() == whole and output.missing() == []
    for left in (b"", whole[:-70], whole.replace(b"11", b"12")):
        place.put(left)
        with pytest.raises(Damaged, match="not known to be of these settings and inputs; give .* --restart s to"):
            StageOutput(root).plan(plan | {"size": 12})
        assert place.read() == left and (root / "commits" / "t.json").exists()


def test_a_file_system_without_links_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: object, target: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(InputError, match="its file system has no hard links.*use a --work folder"):
        StageOutput(tmp_path).plan({"stage": "s", "tasks": []})
    assert list(tmp_path.iterdir()) == []


def test_what_was_put_elsewhere_is_removed_with_the_output(root: Location, bucket: Bucket) -> None:
    output, elsewhere = StageOutput(root / "below"), bucket.uri("elsewhere")
    output.plan({"stage": "s", "tasks": ["t"]})
    first = output.commit("t", {"large": b"1", "small": b"2"}, {}, {"large": elsewhere})
    output.commit("t", {"large": b"1", "small": b"2"}, {}, {"large": elsewhere})
    assert len(keys(location_of(elsewhere))) == 2
    manifest = output.finish({})
    assert [str(location_of(elsewhere) / key) for key in keys(location_of(elsewhere))] == [first.files["large"]["key"]]
    assert output.read(manifest.commits[0], "large") == b"1"
    remove_outputs(root)
    assert keys(root) == keys(location_of(elsewhere)) == []
