import hashlib
from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.manifest import (
    MANIFEST,
    CommitLines,
    CommitRecord,
    Manifest,
    canonical_json,
    commit_line,
    file_location,
    read_file,
    read_manifest,
    require_size,
)
from dhpf.storage import Location, location_of

COMMIT = CommitRecord(
    "block-000000", {"a": {"key": "data/a", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}}, {"num_pairs": 1}
)


def test_no_manifest_means_not_complete(tmp_path: Path) -> None:
    assert read_manifest(location_of(tmp_path)) is None
    (tmp_path / MANIFEST).write_bytes(canonical_json({"record": {"stage": "match"}, "commits": [vars(COMMIT)]}))
    assert read_manifest(location_of(tmp_path)) == Manifest({"stage": "match"}, (COMMIT,))


@pytest.mark.parametrize("content", [b"{", b'{"record": {}}', b'{"record": {}, "commits": [{"task": "x"}]}', b"[]"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match="MANIFEST.json: damaged since it was written"):
        read_manifest(location_of(tmp_path))


def test_size_and_digest_are_checked(tmp_path: Path) -> None:
    root = location_of(tmp_path)
    place = file_location(root, COMMIT, "a")

    def check_size(root: Location, commit: CommitRecord, name: str) -> None:
        require_size(place, place.size(), commit.files[name])

    for check in (read_file, check_size):
        with pytest.raises(InputError, match="data/a: gone; `dhpf verify RUN --repair`"):
            check(root, COMMIT, "a")
    (tmp_path / "data").mkdir()
    for content, error in ((b"abcd", "4 bytes instead of 3"), (b"abd", "damaged since it was written")):
        (tmp_path / "data" / "a").write_bytes(content)
        with pytest.raises(InputError, match=error):
            read_file(root, COMMIT, "a")
    check_size(root, COMMIT, "a")  # the digest is not looked at
    (tmp_path / "data" / "a").write_bytes(b"abcd")
    with pytest.raises(InputError, match="4 bytes instead of 3"):
        check_size(root, COMMIT, "a")
    (tmp_path / "data" / "a").write_bytes(b"abc")
    assert read_file(root, COMMIT, "a") == b"abc"


def test_the_digest_is_of_the_content_alone() -> None:
    elsewhere = CommitRecord(COMMIT.task, {"a": dict(COMMIT.files["a"]) | {"key": "data/b"}}, {"seconds": 5})
    changed = CommitRecord(COMMIT.task, {"a": dict(COMMIT.files["a"]) | {"sha256": "0"}}, {})
    assert Manifest({}, (COMMIT,)).digest() == Manifest({"seconds": 1}, (elsewhere,)).digest()
    assert Manifest({}, (COMMIT,)).digest() != Manifest({}, (changed,)).digest()


def test_commits_held_as_lines_are_the_same_commits(tmp_path: Path) -> None:
    other = CommitRecord("block-000001", {}, {"first_failure": "image \n\u2028 \udcff: damaged"})
    lines = CommitLines(map(commit_line, (COMMIT, other)))
    assert list(lines) == [COMMIT, other] and list(lines[1:]) == [other] and lines[-1] == other
    (tmp_path / MANIFEST).write_bytes(lines.manifest_bytes({"stage": "match"}))
    assert read_manifest(location_of(tmp_path)) == Manifest({"stage": "match"}, (COMMIT, other))
    assert Manifest({}, lines).digest() == Manifest({}, (COMMIT, other)).digest()
    (tmp_path / MANIFEST).write_bytes(CommitLines([]).manifest_bytes({}))
    assert read_manifest(location_of(tmp_path)) == Manifest({}, ())
