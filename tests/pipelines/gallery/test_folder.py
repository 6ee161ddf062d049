from __future__ import annotations

from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.gallery.folder import new_folder, require_absent


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "gallery") as begun:
        (begun / "index.html").write_text("all")
        assert not (tmp_path / "deep" / "gallery").exists()
    assert (tmp_path / "deep" / "gallery" / "index.html").read_text() == "all"
    assert (tmp_path / "deep" / "gallery").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["gallery"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "gallery") as begun:
        (begun / "index.html").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "file", "link"):
        with pytest.raises(InputError, match=f"{name}: is there already, and is left as it is"):
            require_absent(tmp_path / name)


def test_a_folder_that_somebody_makes_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is there already"), new_folder(tmp_path / "gallery") as begun:
        (begun / "index.html").write_text("ours")
        (tmp_path / "gallery").mkdir()
        (tmp_path / "gallery" / "theirs").write_text("theirs")
    assert [path.name for path in tmp_path.rglob("*")] == ["gallery", "theirs"]


def test_a_place_where_nothing_can_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"), new_folder(tmp_path / "file" / "gallery"):
        pass
