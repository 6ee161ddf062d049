from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.images import ImageError
from dhpf.pairs.image_folder import ImageFolder
from dhpf.pairs.image_store import BucketImages, FolderImages, open_image_store
from dhpf.records import PairRecord

if TYPE_CHECKING:
    from tests.conftest import Bucket

NAMES = ("a.jpg", "x/b.png", "x/Ünder the #1 ?.JPG", "y/z/c.webp")
LEFT_OUT = ("notes.txt", ".hidden/d.png", "x/.e.png")


@pytest.fixture
def uri(bucket: Bucket) -> str:
    return filled(bucket)


def filled(bucket: Bucket) -> str:
    for name in (*NAMES, *LEFT_OUT):
        bucket.put(f"below this/{name}", name.encode())
    bucket.put("beside.jpg", b"not below the prefix")
    return bucket.uri("below this")


def test_a_bucket_gives_what_a_folder_gives(uri: str, tmp_path: Path) -> None:
    for name in (*NAMES, *LEFT_OUT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    folder, bucket = (open_image_store(root, "collection") for root in (str(tmp_path), uri))
    assert isinstance(folder, FolderImages) and isinstance(bucket, BucketImages)
    assert folder.ids() == bucket.ids() == sorted(NAMES)
    assert folder.num_other_files() == bucket.num_other_files() == 1, "notes.txt; hidden files are not counted"
    for name in NAMES:
        assert folder.read(name) == bucket.read(name) == name.encode()
        assert folder.size(name) == bucket.size(name) == len(name.encode())
    pairs = [[p for p in ImageFolder(root).pairs("all") if isinstance(p, PairRecord)] for root in (str(tmp_path), uri)]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 6


def test_what_is_not_there_is_said(uri: str, bucket: Bucket) -> None:
    with pytest.raises(ImageError, match="image gone.jpg: no such object"):
        BucketImages(uri).read("gone.jpg")
    with pytest.raises(InputError, match="no such bucket or prefix"):
        BucketImages(bucket.uri("nowhere")).ids()
    with pytest.raises(InputError, match="bucket does not exist"):
        BucketImages(f"s3://other-bucket/x?{bucket.query}").ids()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/x", "gs:// is not read"),
        ("file:///etc", "file:// is not read"),
        ("s3:///x", "names no bucket"),
        ("s3://key:hush@bucket/x", r"'s3://\.\.\.@bucket/x': holds credentials"),
    ],
)
def test_an_unusable_uri_is_refused(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_image_store(uri, "collection")
    assert "hush" not in str(error.value)


def test_an_unknown_setting_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="not a URI that can be used"):
        BucketImages(f"{uri}&speed=high").ids()


def test_keys_that_do_not_open_it_are_said(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match="cannot be listed"):
        BucketImages(uri + "&allow_bucket_creation=false").ids()  # another URI: opened anew


@pytest.mark.chaos
def test_a_store_that_pauses_is_waited_for_and_one_that_is_gone_is_said(mortal_bucket: Bucket) -> None:
    uri = filled(mortal_bucket)
    mortal_bucket.server.send_signal(signal.SIGSTOP)
    threading.Timer(5, mortal_bucket.server.send_signal, [signal.SIGCONT]).start()
    assert BucketImages(uri).read("a.jpg") == b"a.jpg"
    mortal_bucket.server.kill()
    with pytest.raises(InputError, match="the store does not give 'a.jpg' .*; the same command goes on from here"):
        BucketImages(uri).read("a.jpg")
