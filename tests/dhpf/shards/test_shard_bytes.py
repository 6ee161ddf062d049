"""Shards in a bucket of a real S3 server, and their copies on this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dhpf.errors import InputError
from dhpf.object_store import object_uri, put_object, remove_object
from dhpf.planning.blocks import Block
from dhpf.records import PairRecord
from dhpf.shards import shard_bytes
from dhpf.shards.shard_bytes import copies_folder, read_shard
from dhpf.shards.shards import Shard, encode_shard

if TYPE_CHECKING:
    from tests.conftest import Bucket

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))


@pytest.fixture(autouse=True)
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))


@pytest.fixture
def uri(bucket: Bucket, tmp_path: Path) -> str:
    uri = object_uri(bucket.uri("shards"), f"{tmp_path.name}/shard.tar")
    put_object(uri, CONTENT)
    return uri


def copies() -> list[Path]:
    return list(copies_folder().iterdir())


def test_a_shard_is_fetched_once(uri: str) -> None:
    assert read_shard(uri, len(CONTENT), 100, 50) == CONTENT[100:150]
    remove_object(uri)
    assert read_shard(uri, len(CONTENT), 4990, 10) == CONTENT[4990:]
    (copy,) = copies()
    assert copy.read_bytes() == CONTENT and copies_folder().stat().st_mode & 0o777 == 0o700
    copy.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="is gone from the store"):  # a copy of another size is none
        read_shard(uri, len(CONTENT), 0, 1)


def test_without_room_only_what_is_read_is_fetched(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_bytes, "KEPT_FREE", 1.0)
    assert read_shard(uri, len(CONTENT), 100, 50) == CONTENT[100:150]
    assert copies() == []


def test_copies_that_nobody_reads_make_room(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copies_folder().mkdir(parents=True)
    fresh, stale = copies_folder() / "fresh.tar", copies_folder() / "stale.tar"
    for path in (fresh, stale):
        path.write_bytes(b"another shard")
    long_ago = time.time() - 2 * shard_bytes.STALE_SECONDS
    os.utime(stale, (long_ago, long_ago))
    read_shard(uri, len(CONTENT), 0, 1)
    assert stale.exists(), "there is room for it"
    monkeypatch.setattr(shard_bytes, "KEPT_FREE", 1.0)
    read_shard(uri, len(CONTENT) + 1, 0, 1)
    assert fresh.exists() and not stale.exists()


def test_a_damaged_copy_is_fetched_again(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    block = Block("block", ("a.png", "b.png"), (PairRecord("p", "", "a.png", "b.png"),))
    encoded = encode_shard(block, lambda image_id: (tmp_path / image_id).read_bytes())
    uri, index = object_uri(bucket.uri("shards"), "damaged.tar"), tmp_path / "index.json"
    put_object(uri, encoded.tar)
    index.write_bytes(encoded.index)
    shard = Shard(uri, index)
    image = shard.image_bytes("a.png")
    (copy,) = copies()
    copy.write_bytes(bytes(len(encoded.tar)))
    assert shard.image_bytes("a.png") == image == (tmp_path / "a.png").read_bytes()
    assert shard.pair(0).source == "a.png"
    copy.unlink()
    put_object(uri, bytes(len(encoded.tar)))
    with pytest.raises(InputError, match="image 'a.png' is damaged; write the shard again"):
        shard.image_bytes("a.png")
