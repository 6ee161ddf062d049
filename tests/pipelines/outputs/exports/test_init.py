from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dhpf.errors import InputError
from dhpf.manifest import Damaged
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.outputs.exports import EXPORTS, export
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.storage import location_of

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.mark.parametrize("kind", EXPORTS)
def test_every_row_is_written_or_counted(kind: str, run: Path, tmp_path: Path) -> None:
    tally = export(str(run), kind, tmp_path / "new" / "out")
    assert tally.num_pairs == 5 and tally.num_written + sum(tally.left_out.values()) == 5
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize("kind", EXPORTS)
def test_what_is_there_stays(kind: str, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("mine")
    with pytest.raises(InputError, match="out is there already; remove it, or choose another name"):
        export(str(run), kind, output)
    assert output.read_text() == "mine"


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_that_fails_leaves_nothing(kind: str, run: Path, tmp_path: Path) -> None:
    output = StageOutput(run / "match" / "photos")
    place = output.location(output.committed()["block-1"], "part.parquet")
    place.put(place.read()[:-1])
    with pytest.raises(Damaged, match="bytes instead of"):
        export(str(run), kind, tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_cannot_be_exported_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--format: unknown value 'xml'; .*hdf5"):
        export(str(run), "xml", tmp_path / "out")
    with pytest.raises(InputError, match="no complete output with a table"):
        export(str(tmp_path / "elsewhere"), "csv", tmp_path / "out")
    unfinished = StageOutput(tmp_path / "unfinished")
    unfinished.plan({"stage": "match", "tasks": ["block-0"]})
    with pytest.raises(InputError, match="no complete output with a table"):
        export(str(tmp_path / "unfinished"), "csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "package"), [("hdf5", "h5py"), ("colmap", "pycolmap")])
def test_a_missing_package_is_named_with_its_extra(
    kind: str, package: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs {package}, which is not installed: pip install 'dhpf\[{kind}\]'"):
        export(str(run), kind, tmp_path / "out")


def test_the_command_says_what_was_left_out(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["export", str(run), "--format", "hdf5", "-o", str(tmp_path / "out"), "--json"])
    printed = capsys.readouterr()
    facts: dict[str, Any] = json.loads(printed.out)
    assert status == 3 and facts["num_written"] == 4 and facts["left_out"] == {"not matched": 1}
    assert "1 pair left out: 1 not matched" in printed.err
    assert main(["export", str(run), "--format", "csv", "-o", str(tmp_path / "out")]) == 2


def test_a_run_in_a_bucket_is_exported(bucket: Bucket, run: Path, tmp_path: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file():
            location_of(bucket.uri(f"work/run/{path.relative_to(run).as_posix()}")).put_file(path)
    assert export(bucket.uri("work/run"), "csv", tmp_path / "out.csv").num_written == 5
