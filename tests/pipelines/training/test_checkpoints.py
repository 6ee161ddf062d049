"""Which checkpoint a training goes on from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.manifest import sealed_json
from dhpf.pipelines.training.checkpoints import make_ready, newest_whole, on_disk
from dhpf.pipelines.training.state import FILES, PROGRESS
from dhpf.storage import Location, location_of

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.fixture(params=["folder", "bucket"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Location:
    return location_of(str(tmp_path / "train") if request.param == "folder" else bucket.uri("train"))


def write(stage: Location, number: int, *, digests: bool = True) -> Location:
    place = stage / "ray" / f"checkpoint_{number}"
    contents = {name: f"{name} of {number}".encode() for name in FILES}
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[PROGRESS] = sealed_json({"step": number} | ({"files": files} if digests else {}))
    for name, content in contents.items():
        (place / name).put(content)
    return place


def test_there_may_be_none(stage: Location) -> None:
    assert newest_whole(stage) is None
    make_ready(stage)
    (stage / "ray" / "checkpoint_1" / FILES[0]).put(b"its writer was killed")
    assert newest_whole(stage) is None


@pytest.mark.parametrize("name", [*FILES, PROGRESS])
def test_a_damaged_one_is_passed_over_with_a_warning(
    stage: Location, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    earlier, newest = write(stage, 1), write(stage, 2)
    assert newest_whole(stage) == newest
    content = bytearray((newest / name).read())
    content[len(content) // 2] ^= 1
    (newest / name).put(bytes(content))
    assert newest_whole(stage) == earlier
    assert f"checkpoint_2/{name}" in caplog.text and "damaged since it was written" in caplog.text
    with on_disk(earlier) as folder:
        assert {path.name for path in folder.iterdir()} == {*FILES, PROGRESS}
    (earlier / FILES[0]).delete()
    with pytest.raises(InputError, match="none of its 2 checkpoints is as it was written.*--restart train"):
        newest_whole(stage)


def test_one_without_digests_is_read_if_all_its_files_are_there(stage: Location) -> None:
    assert newest_whole(stage / "whole") is None
    assert newest_whole(stage) is None
    place = write(stage, 1, digests=False)
    assert newest_whole(stage) == place


def test_what_is_old_goes_and_what_may_still_be_written_stays(stage: Location) -> None:
    for number in (1, 2, 3):
        write(stage, number)
    (stage / "ray" / "checkpoint_4" / FILES[0]).put(b"being written")
    (stage / "ray" / "checkpoint_manager_snapshot.json").put(b"")
    make_ready(stage)
    tops = {entry.key.partition("/")[0] for entry in (stage / "ray").entries()}
    assert tops == {"checkpoint_2", "checkpoint_3", "checkpoint_4"}
