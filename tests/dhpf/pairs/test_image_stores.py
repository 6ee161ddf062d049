"""Images of a folder and of a bucket: every one is listed, and whatever is skipped is named."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.images import EXTENSIONS, ImageError
from dhpf.pairs.image_folder import ImageFolder
from dhpf.pairs.image_stores import BucketImages, FolderImages, KnownNames, list_images, open_image_store
from dhpf.records import PairRecord
from dhpf.regular_files import Stamp
from dhpf.storage.bucket import PATIENCE_VARIABLE

if TYPE_CHECKING:
    from infra.s3_server import Bucket

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
    for listing in (folder.listing(), bucket.listing()):
        assert listing.images == tuple(sorted(NAMES))
        assert [*map(str, listing.remarks)] == ["skipped, no image by its name (1): notes.txt"], (
            "hidden ones are not told"
        )
        assert listing.stamps[:, 0].tolist() == [len(name.encode()) for name in listing.images]
    for name in NAMES:
        assert folder.read(name) == bucket.read(name) == name.encode()
    pairs = [[p for p in ImageFolder(root).pairs("all") if isinstance(p, PairRecord)] for root in (str(tmp_path), uri)]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 6


def test_what_is_not_there_is_said(uri: str, bucket: Bucket) -> None:
    with pytest.raises(ImageError, match="image gone.jpg: no such object"):
        BucketImages(uri).read("gone.jpg")
    with pytest.raises(InputError, match="no such bucket or prefix"):
        BucketImages(bucket.uri("nowhere")).listing()
    with pytest.raises(InputError, match="no such bucket or prefix|does not answer"):
        BucketImages(f"s3://other-bucket/x?{bucket.query}").listing()


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
        BucketImages(f"{uri}&speed=high").listing()


def test_keys_that_do_not_open_it_are_said(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match="denies access"):
        BucketImages(uri.replace("us-east-1", "eu-west-1")).listing()  # another URI: opened anew


@pytest.mark.chaos
def test_a_store_that_pauses_is_waited_for_and_one_that_is_gone_is_said(
    mortal_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "3")
    uri = filled(mortal_bucket)
    mortal_bucket.server.send_signal(signal.SIGSTOP)
    threading.Timer(5, mortal_bucket.server.send_signal, [signal.SIGCONT]).start()
    assert BucketImages(uri).read("a.jpg") == b"a.jpg"
    mortal_bucket.server.kill()
    with pytest.raises(InputError, match="a.jpg.*: the store does not answer .*; the same command goes on from here"):
        BucketImages(uri).read("a.jpg")


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_an_image_that_was_written_again_is_no_longer_the_listed_one(
    kind: str, uri: str, bucket: Bucket, tmp_path: Path
) -> None:
    def write(content: bytes) -> None:
        if kind == "bucket":
            bucket.put("below this/a.jpg", content)
        else:
            (tmp_path / "a.jpg").write_bytes(content)

    write(b"before")
    images = BucketImages(uri) if kind == "bucket" else FolderImages(str(tmp_path))
    listed = Stamp(*images.listing().stamps[0].tolist())
    assert images.read("a.jpg", listed) == b"before"
    write(b"after!")
    assert images.read("a.jpg") == b"after!"
    with pytest.raises(ImageError, match=r"a.jpg.*: changed since the run began \(6 bytes then, as many now, written"):
        images.read("a.jpg", listed)
    write(b"longer than before")
    with pytest.raises(ImageError, match=r"changed since the run began \(6 bytes then, 18 now\)"):
        images.read("a.jpg", listed)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_whatever_is_skipped_is_counted_and_named(open_folder: Path) -> None:
    root = open_folder / "photos"
    for name in ("a.jpg", "shut/b.jpg", "notes.txt", "c.svg", "d.xcf", "e", ".hidden.txt", "f.HEIC"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (open_folder / "out.jpg").touch()
    for name, target in (
        ("album", "shut"),
        ("loop", "."),
        ("broken.jpg", "gone.jpg"),
        ("itself.jpg", "itself.jpg"),
        ("out.jpg", "../out.jpg"),
        ("in.jpg", "a.jpg"),
    ):
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.jpg")
    (root / "shut").chmod(0)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)  # root may list every folder
    try:
        listing = list_images(str(root), "collection")
    finally:
        if was_root:
            os.seteuid(0)
        (root / "shut").chmod(0o755)
    skipped = {remark.text.removeprefix("skipped, "): (remark.count, remark.first) for remark in listing.remarks}
    expected = {
        "a link to a folder": (2, ("album", "loop")),
        "a link that leads nowhere": (2, ("broken.jpg", "itself.jpg")),
        "a link out of the folder": (1, ("out.jpg",)),
        "a named pipe, socket or device": (1, ("pipe.jpg",)),
        "a folder that cannot be listed": (1, ("shut/",)),
        "no image by its name": (4, ("c.svg", "d.xcf", "e")),
    }
    if ".heic" in EXTENSIONS:
        assert listing.images == ("a.jpg", "f.HEIC", "in.jpg") and skipped == expected
    else:
        heic = {"HEIC is read with an extra: pip install 'dhpf[heic]'": (1, ("f.HEIC",))}
        assert listing.images == ("a.jpg", "in.jpg") and skipped == expected | heic
    assert "skipped, no image by its name (4): c.svg, d.xcf, e, ..." in map(str, listing.remarks)


def test_where_there_is_no_image_what_there_is_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"collection .*: holds no image \(.*\); skipped, no image .*: notes.txt"):
        list_images(str(tmp_path), "collection")


@pytest.mark.parametrize("name", ["a.JPG", "a.Jpeg", "a.jpe", "a.JFIF", "a.jp2", "a.J2K", "a.avif", "a.TIFF", "a.gif"])
def test_endings_of_images(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert list_images(str(tmp_path), "collection").images == (name,)


COMPOSED, DECOMPOSED = "caf\u00e9.jpg", "cafe\u0301.jpg"


def test_two_ways_to_write_an_accent_are_one_name_to_a_list_and_two_to_a_folder(tmp_path: Path) -> None:
    for name in (COMPOSED, DECOMPOSED, "plain.jpg"):
        (tmp_path / name).touch()
    listing = list_images(str(tmp_path), "collection")
    assert len(listing.images) == 3
    (remark,) = listing.remarks
    assert str(remark).startswith("kept apart, differs from another name only in how its accents are written (1): caf")
    both = KnownNames(listing.images)
    assert both.find(COMPOSED) == COMPOSED and both.find(DECOMPOSED) == DECOMPOSED
    assert KnownNames([DECOMPOSED]).find(COMPOSED) == DECOMPOSED
    assert KnownNames([COMPOSED]).find(DECOMPOSED) == COMPOSED
    assert KnownNames([COMPOSED]).find("cafe.jpg") is None
