"""What files alone do; what they share with objects: test_location.py."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.storage.file_system import FileLocation

Write = Callable[[FileLocation, bytes], object]


def test_a_file_system_without_links_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: object, target: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(InputError, match="its file system has no hard links.*use a --work folder"):
        FileLocation(tmp_path / "x").put_if_absent(b"")
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    file = FileLocation(tmp_path / "x")
    assert file.put_if_absent(b"1") and not file.put_if_absent(b"2")
    file.put(b"3")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and file.read() == b"3"


@pytest.mark.parametrize("write", [FileLocation.put, FileLocation.put_if_absent])
def test_a_disk_without_room_and_a_folder_that_cannot_be_made_are_said(tmp_path: Path, write: Write) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"/x: cannot be written \(File too large\); make room"):
            write(FileLocation(tmp_path / "x"), bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x: cannot be written \(File exists\); see to it"):
        write(FileLocation(tmp_path / "file" / "x"), b"")


def test_content_and_new_folders_reach_the_disk_before_their_names_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".")[0])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    FileLocation(tmp_path / "a" / "b" / "file").put(b"1")
    assert synced == [tmp_path.name, "a", "", "b"], "folders, the temporary .file, and the folder that names it"
