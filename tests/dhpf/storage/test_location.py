"""Both kinds of locations give the same answers: a folder, and a prefix of a bucket on a real S3 server."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.storage import Entry, Location, location_of

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Location:
    root = str(tmp_path / "a folder") if request.param == "folder" else bucket.uri("a folder")
    return location_of(root)


def test_content_is_put_read_whole_and_in_parts_and_removed(place: Location) -> None:
    file = place / "the #1 ?/Ünder 100%.tar"
    assert file.find() is None and file.size() is None and not file.exists()
    file.put(bytes(range(200)))
    assert file.read() == bytes(range(200)) and file.size() == 200 and file.exists()
    assert file.read_range(10, 5) == bytes(range(10, 15)) and file.read_range(190, 50) == bytes(range(190, 200))
    assert file.read_range(200, 5) == file.read_range(300, 5) == file.read_range(5, 0) == b""
    file.put(b"other")
    assert file.read() == b"other"
    file.delete()
    file.delete()
    assert not file.exists()


def test_what_is_gone_is_said_with_its_place(place: Location) -> None:
    for read in (lambda: (place / "x.json").read(), lambda: (place / "x.json").read_range(0, 5)):
        with pytest.raises(InputError, match=r"a.*folder/x.json.*: is not there, or no longer"):
            read()


def test_names_and_texts_lead_back_to_the_place(place: Location) -> None:
    file = place / "x y" / "z.json"
    assert file == place / "x y/z.json" == location_of(str(file)) == pickle.loads(pickle.dumps(file))
    assert file.name == "z.json" and place.name == "a folder" and location_of(file) is file


def test_entries_are_sorted_at_any_depth_and_below_the_place_alone(place: Location) -> None:
    assert list(place.entries()) == []
    for key in ("b", "a/c", "a/.left-by-a-killed-writer", "a/b/d"):
        (place / key).put(key.encode())
    location_of(f"{place}-beside" if "?" not in str(place) else str(place).replace("?", "-beside?")).put(b"")
    assert list(place.entries()) == [Entry("a/b/d", 5), Entry("a/c", 3), Entry("b", 1)]
    assert [entry.key for entry in (place / "a").entries(hidden=True)] == [".left-by-a-killed-writer", "b/d", "c"]
    (place / "a").delete_all()
    assert [entry.key for entry in place.entries(hidden=True)] == ["b"]
    place.delete_all()
    place.delete_all()
    assert list(place.entries()) == []


def test_only_the_first_of_several_puts_counts(place: Location) -> None:
    file = place / "commit.json"
    assert file.put_if_absent(b"first") and not file.put_if_absent(b"second") and file.read() == b"first"


def test_of_eight_threads_one_wins(place: Location) -> None:
    for number in range(5):
        won: list[int] = []
        start = threading.Barrier(8)

        def put(writer: int, number: int = number, won: list[int] = won, start: threading.Barrier = start) -> None:
            start.wait()
            if (place / f"{number}").put_if_absent(b"%d" % writer):
                won.append(writer)

        threads = [threading.Thread(target=put, args=(writer,)) for writer in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1 and (place / f"{number}").read() == b"%d" % won[0]


def put_in_process(place: Location, writer: int, answers: multiprocessing.SimpleQueue[tuple[int, bool]]) -> None:
    answers.put((writer, (place / "raced").put_if_absent(b"%d" % writer)))


def test_of_several_processes_one_wins(place: Location) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    processes = [context.Process(target=put_in_process, args=(place, writer, answers)) for writer in range(4)]
    for process in processes:
        process.start()
    found = dict(answers.get() for _ in processes)
    for process in processes:
        process.join(timeout=60)
    (winner,) = [writer for writer, won in found.items() if won]
    assert (place / "raced").read() == b"%d" % winner


def test_large_content(place: Location) -> None:
    content = bytes(range(256)) * 60_000  # more than one part of an upload
    (place / "large").put(content)
    assert (place / "large").size() == len(content) and (place / "large").read() == content
    assert (place / "once").put_if_absent(content)
    assert (place / "once").read_range(15_000_000, 3) == content[15_000_000:15_000_003]


def test_a_file_is_put_as_it_lies(place: Location, tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"content")
    (place / "x" / "copy").put_file(tmp_path / "own")
    assert (place / "x" / "copy").read() == b"content"
