"""Whatever stands where a user's file belongs, reading it ends, and with one sentence."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dhpf.checkpoint import load_network
from dhpf.config import located_weights
from dhpf.errors import InputError
from dhpf.images import MAX_FILE_BYTES, ImageError, read_image
from dhpf.model.weight_files import read_state_dict
from dhpf.pairs import open_pair_source
from dhpf.pairs.image_stores import FolderImages
from dhpf.pairs.pair_list import read_rows
from dhpf.pairs.source import MAX_LINE_LETTERS, read_table, require_root
from dhpf.pipelines.workflow_file import read_workflows
from dhpf.regular_files import UnreadableFile, is_file, is_folder, open_regular, read_regular
from dhpf.storage.file_system import FileLocation

KINDS = {"pipe": "a named pipe", "socket": "a socket", "device": "a device", "folder": "a folder"}


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Path]:
    """A folder with something of each kind, under names that files of any sort may have."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    before = Path.cwd()
    os.chdir(tmp_path)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        yield tmp_path
    os.chdir(before)


READERS: dict[str, Callable[[Path], Any]] = {
    "image.jpg": read_image,
    "image of a folder.jpg": lambda path: FolderImages(str(path.parent)).read(path.name),
    "any.bin": lambda path: read_regular(path, str(path)),
    "stored.bin": lambda path: FileLocation(path).read(),
    "part.bin": lambda path: FileLocation(path).read_range(0, 5),
    "list.csv": lambda path: list(read_rows(path)),
    "list.parquet": lambda path: list(read_rows(path)),
    "weights.pth": read_state_dict,
    "weights.safetensors": read_state_dict,
    "workflows.yaml": read_workflows,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_read(odd: Path, name: str, kind: str) -> None:
    (odd / kind).rename(odd / name)
    expected = f"{name}.*(: {KINDS[kind]}, not a file that can be read|lies outside)|no weights file .*{name}"
    with pytest.raises(InputError, match=expected):
        READERS[name](odd / name)


@pytest.mark.parametrize("name", ["image.jpg", "weights.safetensors", "weights.pth", "workflows.yaml"])
def test_a_huge_file_is_refused_by_its_size(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(10**12)  # takes no room
    with pytest.raises(InputError, match=rf"{name}: 1,000,000,000,000 bytes, more than [0-9,]+ are not read"):
        READERS[name](tmp_path / name)


def test_a_pipe_that_takes_a_files_place_before_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"x")
    opened = os.open

    def swapped(place: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return opened(place, flags)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(UnreadableFile, match="x.jpg: a named pipe"):
        open_regular(path, "image x.jpg")


def test_a_file_of_no_size_that_gives_bytes_is_not_read_to_an_end() -> None:
    with pytest.raises(UnreadableFile, match=r"grows while it is read \(it had 0 bytes\)"):
        read_regular("/proc/self/stat", "image stat.jpg", 1000)


def test_links_to_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "link", "x", 7) == read_regular(tmp_path / "x", "x") == b"content"
    with pytest.raises(UnreadableFile, match="link: 7 bytes, more than 6 are not read"):
        read_regular(tmp_path / "link", "link", 6)


def test_a_pipe_among_annotations_costs_only_its_pair(tmp_path: Path) -> None:
    for folder in ("Layout/large", "PairAnnotation/test"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "Layout/large/test.txt").write_text("one\ntwo")
    os.mkfifo(tmp_path / "PairAnnotation/test/one.json")
    reasons = [pair.reason for pair in open_pair_source("spair", {"root": str(tmp_path)}).pairs("test")]  # type: ignore[union-attr]
    assert "one.json: a named pipe, not a file" in reasons[0] and "two.json: no such file" in reasons[1]


def test_a_list_of_one_endless_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("source,target\n" + "x" * MAX_LINE_LETTERS)
    with pytest.raises(InputError, match="list.csv: a line of 10,000,000 letters or more; is it a CSV file"):
        list(read_table(tmp_path / "list.csv", ("source",)))


def test_the_limit_of_images_is_stated(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ImageError, match="more than 1,000,000,000 are not read"):
        FolderImages(str(tmp_path)).read("x.jpg")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udcff"])
def test_a_name_that_no_file_can_have_is_that_of_no_file(name: str) -> None:
    assert not is_file(name) and not is_folder(name)
    for work in (lambda: located_weights(name), lambda: load_network(name), lambda: require_root(name, "photos")):
        with pytest.raises(InputError, match="no such file|no weights file|no folder"):
            work()


def test_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert is_file(tmp_path / "file") and not is_folder(tmp_path / "file")
    assert is_folder(tmp_path) and not is_file(tmp_path)
