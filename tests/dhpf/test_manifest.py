import hashlib
from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.manifest import MANIFEST, CommitRecord, Manifest, canonical_json, checked_path, read_manifest

COMMIT = CommitRecord(
    "block-000000", {"a": {"key": "data/a", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}}, {"num_pairs": 1}
)


def test_no_manifest_means_not_complete(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / MANIFEST).write_bytes(canonical_json({"record": {"stage": "match"}, "commits": [vars(COMMIT)]}))
    assert read_manifest(tmp_path) == Manifest({"stage": "match"}, (COMMIT,))


@pytest.mark.parametrize("content", [b"{", b'{"record": {}}', b'{"record": {}, "commits": [{"task": "x"}]}', b"[]"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match="MANIFEST.json: damaged since it was written"):
        read_manifest(tmp_path)


def test_size_and_digest_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data/a: -1 bytes instead of 3"):
        checked_path(tmp_path, COMMIT, "a")
    (tmp_path / "data").mkdir()
    for content, error in ((b"abcd", "4 bytes instead of 3"), (b"abd", "damaged since it was written")):
        (tmp_path / "data" / "a").write_bytes(content)
        with pytest.raises(InputError, match=error):
            checked_path(tmp_path, COMMIT, "a")
    assert checked_path(tmp_path, COMMIT, "a", check_digest=False) == tmp_path / "data" / "a"
    (tmp_path / "data" / "a").write_bytes(b"abc")
    assert checked_path(tmp_path, COMMIT, "a").read_bytes() == b"abc"


def test_the_digest_is_of_the_content_alone() -> None:
    elsewhere = CommitRecord(COMMIT.task, {"a": dict(COMMIT.files["a"]) | {"key": "data/b"}}, {"seconds": 5})
    changed = CommitRecord(COMMIT.task, {"a": dict(COMMIT.files["a"]) | {"sha256": "0"}}, {})
    assert Manifest({}, (COMMIT,)).digest() == Manifest({"seconds": 1}, (elsewhere,)).digest()
    assert Manifest({}, (COMMIT,)).digest() != Manifest({}, (changed,)).digest()
