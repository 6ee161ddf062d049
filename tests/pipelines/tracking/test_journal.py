"""Journals in a folder and in a bucket: numbered by attempt and writer, never rewritten."""

import pickle
from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.tracking.journal import Journal, Writer, journal_place, journals
from dhpf.storage import Location, location_of
from tests.conftest import Bucket


@pytest.fixture(params=["folder", "bucket"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return location_of(tmp_path)
    bucket: Bucket = request.getfixturevalue("bucket")
    return location_of(bucket.uri("our work"))


def test_every_attempt_and_every_process_writes_its_own_part(work: Location) -> None:
    journal = Journal(journal_place(work, work / "w"))
    assert journal.identity() is None and journal.counts() == {}
    driver = journal.begin("w")
    worker: Writer = pickle.loads(pickle.dumps(driver))
    worker.write("metrics", "r", {"metrics": {"loss": float("inf")}, "step": 1}, when=5)
    driver.write_with_file("artifact", "r", {"artifact": "notes/ü.txt"}, "ü.txt", b"hello")
    again = Journal(journal.place)
    second = again.begin("w")
    key = again.identity()
    assert key == journal.identity() and again.experiment() == "w"
    counts = again.counts()
    assert list(counts.values()) == [2, 1, 1] and list(counts)[0] == "000001/driver"
    assert list(counts)[1].startswith("000001/worker-") and list(counts)[2] == "000002/driver"
    assert again.counts(2) == {"000002/driver": 1} and second.attempt == 2
    record = again.read(list(counts)[1], 1)
    assert (record.kind, record.run, record.when) == ("metrics", "r", 5)
    assert record.facts == {"metrics": {"loss": float("inf")}, "step": 1}
    file = again.read("000001/driver", 2).facts["file"]
    assert (again.place / file).read() == b"hello"
    assert [found.place.name for found in journals(work)] == ["w"]


def test_two_drivers_that_begin_at_once_are_two_attempts_of_one_run(work: Location) -> None:
    one, other = (Journal(journal_place(work, work / "w")) for _ in range(2))
    assert {one.begin("w").attempt, other.begin("w").attempt} == {1, 2}
    assert one.identity() == other.identity()
    with pytest.raises(InputError, match="another process writes this part"):
        Writer(one.place, 2, "driver").write("tags", "r", {})


def test_runs_of_the_same_name_in_other_folders_have_journals_of_their_own(tmp_path: Path) -> None:
    work = location_of(tmp_path / "work")
    places = {str(journal_place(work, location_of(tmp_path / name / "f"))) for name in ("work", "a", "b")}
    assert len(places) == 3 and str(work / "journal" / "f") in places
