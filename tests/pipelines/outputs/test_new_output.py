from __future__ import annotations

from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.outputs.new_output import new_output


def require_absent(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path.name} is mine")


def test_a_file_appears_with_its_whole_content(tmp_path: Path) -> None:
    with new_output(tmp_path / "deep" / "a.csv", require_absent) as begun:
        begun.write_text("all")
        assert not (tmp_path / "deep" / "a.csv").exists()
    assert (tmp_path / "deep" / "a.csv").read_text() == "all"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.csv"]


def test_what_is_made_there_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.csv is mine"), new_output(tmp_path / "a.csv", require_absent) as begun:
        begun.write_text("ours")
        (tmp_path / "a.csv").write_text("theirs")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_where_nothing_can_be_made_is_said_and_an_error_of_the_block_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"), new_output(tmp_path / "file" / "a.csv", require_absent):
        pass
    with pytest.raises(OSError, match="of the block"), new_output(tmp_path / "a.csv", require_absent):
        raise OSError("of the block")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
