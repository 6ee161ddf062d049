"""Every flipped byte of a real small run is found by `dhpf verify` and by whoever reads it; the next run repairs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dhpf.results
from dhpf.errors import InputError
from dhpf.manifest import REPAIR
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.pipelines.verification import parts_of
from dhpf.pipelines.workflow import WorkflowRun
from dhpf.pipelines.workflow_file import load_workflow
from dhpf.storage import location_of

WORKFLOWS = Path(__file__).parents[2] / "workflows.yaml"

Run = Callable[[], Path]


@pytest.fixture
def run(cats_and_cups: Path, tmp_path: Path, tasks_here: None, no_cluster: None) -> Run:
    """Runs a workflow, or goes on with it; gives its folder."""

    def run() -> Path:
        workflow = load_workflow(WORKFLOWS, "match-collection", ["shard.max_pairs=5"], cats_and_cups)
        folder = tmp_path / "w" / "match-collection"
        WorkflowRun(workflow, location_of(folder), Tracker(tmp_path / "w")).run()
        return folder

    return run


def flipped(path: Path, place: float) -> bytes:
    """Flips a bit of a file at a share of its length; gives what was there before."""
    before = path.read_bytes()
    content = bytearray(before)
    content[round(place * (len(content) - 1))] ^= 1
    path.write_bytes(bytes(content))
    return before


def damaged_keys(folder: Path) -> Iterator[str]:
    for part in parts_of(location_of(folder)):
        part.verify(lambda size: None)
        yield from (str(part.root / damage.key) for damage in part.damage)


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_flipped_byte_is_found_and_what_is_damaged_is_made_again_alone(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run()
    assert list(damaged_keys(folder)) == []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = {path.suffix for path in files} | {path.name for path in files}
    assert {".tar", "index.json", "part.parquet", "rejects.parquet", "PLAN.json", "MANIFEST.json"} <= kinds
    journal = folder.parent / "journal" / "match-collection"
    records, pictures = (sorted(journal.rglob(f"*.{kind}"))[:2] for kind in ("json", "png"))
    assert len(records) == len(pictures) == 2
    for path in (*files, *records, *pictures):
        for place in (0, 0.3, 0.7, 1):
            before = flipped(path, place)
            found = list(damaged_keys(folder))
            path.write_bytes(before)
            assert found == [str(path)] or (path.name == "MANIFEST.json" and str(path) in found), (path, place, found)

    _damage_is_told_and_repaired(run, folder, capsys)
    _a_damaged_shard_is_made_again(run, folder)


def _damage_is_told_and_repaired(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    match = folder / "match" / "photos" / "all"
    table, before = dhpf.results.open(match).table(), snapshot(folder)
    part, other = sorted(match.glob("data/block-*/*/part.parquet"))[:2]
    flipped(part, 0.5)
    other.unlink()
    with pytest.raises(InputError, match=f"part.parquet: damaged since it was written; {REPAIR}"):
        dhpf.results.open(match).table()
    assert main(["verify", str(folder), "--json"]) == 2
    facts = json.loads(capsys.readouterr().out)
    found = {part["name"]: (part["damaged"], part["missing"]) for part in facts["parts"]}
    assert found["match/photos/all"] == (1, 1) and facts["damaged"] == 2
    assert main(["verify", str(folder), "--repair"]) == 2
    said = capsys.readouterr()
    assert "match/photos/all, task block-000000: data/block-000000/" in said.out
    assert "2 tasks marked; the command of the run does them again" in said.out
    assert said.err.rstrip().endswith(f"dhpf: 2 files of {folder} damaged or missing")
    run()
    assert main(["verify", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["part", "state", "files", "bytes", "damaged", "missing", "unreferenced"]
    assert lines[-1].split()[0] == "all" and lines[-1].split()[-3:] == ["0", "0", "0"]
    assert dhpf.results.open(match).table().equals(table)
    changed = {path for path, when in snapshot(folder).items() if before.get(path) != when}
    tasks = {path.relative_to(match).parts[1] for path in changed if "data" in path.parts}
    assert tasks == {"block-000000", "block-000001"} and all(path.is_relative_to(match) for path in changed)


def _a_damaged_shard_is_made_again(run: Run, folder: Path) -> None:
    """Its bytes are the same again, so that what was made of it stays."""
    (tar, *_), shards = sorted(folder.glob("shard/photos/all/data/*/*/shard.tar")), folder / "shard" / "photos" / "all"
    whole = flipped(tar, 0.2)
    shutil.rmtree(folder / "match")
    with pytest.raises(InputError, match="shard.tar: image .* is damaged"):
        run()
    assert main(["verify", str(shards), "--repair", "--quiet"]) == 2
    run()
    (again,) = folder.glob(f"shard/photos/all/data/{tar.parts[-3]}/*/shard.tar")
    assert again.read_bytes() == whole and list(damaged_keys(folder)) == []


def test_a_damaged_manifest_and_commit_are_put_back(run: Run) -> None:
    folder = run()
    match = folder / "match" / "photos" / "all"
    commit, contents = sorted(match.glob("commits/*.json"))[0], match / "MANIFEST.json"
    whole, data = commit.read_bytes(), snapshot(match / "data")
    flipped(commit, 0.5)
    assert main(["verify", str(folder), "--repair", "--quiet"]) == 2
    assert commit.read_bytes() == whole and contents.exists()
    flipped(contents, 0.5)
    with pytest.raises(InputError, match="MANIFEST.json: damaged since it was written"):
        run()
    assert main(["verify", str(match), "--repair", "--quiet"]) == 2
    run()
    assert contents.exists() and list(damaged_keys(folder)) == [] and snapshot(match / "data") == data


def test_what_holds_no_output_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "holds no output of a stage; give the folder of a run" in capsys.readouterr().err
