"""What lies in the folder for temporary files under a name that can be guessed is used only if it is one's own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.storage.private_folder import private_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"dhpf-maps-{os.getuid()}"


def test_a_folder_is_ones_own_and_stays_so(temporary: Path) -> None:
    before = os.umask(0)
    try:
        assert private_folder("maps") == temporary
    finally:
        os.umask(before)
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    temporary.chmod(0o777)
    assert stat.S_IMODE(private_folder("maps").stat().st_mode) == 0o700


def test_what_is_in_the_way_is_not_used(temporary: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for make in (lambda: temporary.symlink_to(elsewhere), lambda: temporary.write_text("")):
        make()
        with pytest.raises(InputError, match="is not a folder of this user alone, .* set TMPDIR"):
            private_folder("maps")
        temporary.unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(temporary: Path) -> None:
    temporary.mkdir()
    os.chown(temporary, 12345, 12345)
    with pytest.raises(InputError, match="is not a folder of this user alone"):
        private_folder("maps")


def test_a_place_without_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made \(Not a directory\); set TMPDIR"):
        private_folder("maps", str(tmp_path / "file"))
