"""Objects in a bucket of a real S3 server, and their copies on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dhpf.errors import InputError
from dhpf.planning.blocks import Block
from dhpf.records import PairRecord
from dhpf.shards.shards import Shard, encode_shard
from dhpf.storage import Location, copies, location_of
from dhpf.storage.copies import copies_folder, local_file, read_part

if TYPE_CHECKING:
    from infra.s3_server import Bucket

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))


@pytest.fixture(autouse=True)
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    monkeypatch.setattr(copies, "KEPT_FREE", 0.0)  # however full this machine's disk is


@pytest.fixture
def disk_of_one_page(tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "copies"
    folder.mkdir()
    mounted = subprocess.run(("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)), capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.decode()}")
    yield
    subprocess.run(("umount", str(folder)), check=True)


@pytest.fixture
def place(bucket: Bucket) -> Location:
    place = location_of(bucket.uri("shards")) / "shard.tar"
    place.put(CONTENT)
    return place


def found_copies() -> list[Path]:
    return list(copies_folder().glob("*/*"))


def test_a_shard_is_fetched_once(place: Location) -> None:
    assert read_part(place, len(CONTENT), 100, 50) == CONTENT[100:150]
    place.delete()
    assert read_part(place, len(CONTENT), 4990, 10) == CONTENT[4990:]
    (copy,) = found_copies()
    assert copy.read_bytes() == CONTENT and copies_folder().stat().st_mode & 0o777 == 0o700
    copy.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="is not there, or no longer"):  # a copy of another size is none
        read_part(place, len(CONTENT), 0, 1)


def test_without_room_only_what_is_read_is_fetched(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "KEPT_FREE", 1.0)
    assert read_part(place, len(CONTENT), 100, 50) == CONTENT[100:150]
    assert found_copies() == []


def test_copies_that_nobody_reads_make_room(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, stale = copies_folder() / "fresh" / "a.tar", copies_folder() / "stale" / "b.tar"
    for path in (fresh, stale):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"another shard")
    long_ago = time.time() - 2 * copies.STALE_SECONDS
    os.utime(stale, (long_ago, long_ago))
    read_part(place, len(CONTENT), 0, 1)
    assert stale.exists(), "there is room for it"
    monkeypatch.setattr(copies, "KEPT_FREE", 1.0)
    read_part(place, len(CONTENT) + 1, 0, 1)
    assert fresh.exists() and not stale.exists()


def test_a_damaged_copy_is_fetched_again(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    block = Block("block", ("a.png", "b.png"), (PairRecord("p", "", "a.png", "b.png"),))
    encoded = encode_shard(block, lambda image_id: (tmp_path / image_id).read_bytes())
    tar, index = location_of(bucket.uri("shards")) / "damaged.tar", tmp_path / "index.json"
    tar.put(encoded.tar)
    index.write_bytes(encoded.index)
    shard = Shard(tar, index)
    image = shard.image_bytes("a.png")
    (copy,) = found_copies()
    copy.write_bytes(bytes(len(encoded.tar)))
    assert shard.image_bytes("a.png") == image == (tmp_path / "a.png").read_bytes()
    assert shard.pair(0).source == "a.png"
    copy.unlink()
    tar.put(bytes(len(encoded.tar)))
    with pytest.raises(InputError, match="image 'a.png' is damaged; `dhpf verify RUN --repair`"):
        shard.image_bytes("a.png")


def test_a_library_that_reads_files_gets_one_of_the_same_name(place: Location, tmp_path: Path) -> None:
    path = local_file(place)
    assert path.name == "shard.tar" and path.read_bytes() == CONTENT and path.is_relative_to(copies_folder())
    assert local_file(place) == path
    (tmp_path / "own").write_bytes(b"here")
    assert local_file(location_of(tmp_path / "own")) == tmp_path / "own"
    for gone in (place / "gone", location_of(tmp_path / "gone")):
        with pytest.raises(InputError, match="gone.*: is not there, or no longer"):
            local_file(gone)


def test_what_must_be_a_file_may_fill_the_disk(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "KEPT_FREE", 1.0)
    assert local_file(place).read_bytes() == CONTENT


def test_a_disk_without_room_for_a_file_is_said(disk_of_one_page: None, place: Location) -> None:
    with pytest.raises(InputError, match="has no room for its 5000 bytes; free some, or set TMPDIR"):
        local_file(place)
