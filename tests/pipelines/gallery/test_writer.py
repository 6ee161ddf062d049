from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dhpf.manifest import Damaged
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.gallery.tables import shown_tables
from dhpf.pipelines.gallery.writer import Written, write_gallery
from dhpf.storage import location_of
from tests.pipelines.gallery.made_up_run import (
    HOSTILE,
    many_rows,
    match_row,
    write_images,
    write_matches,
)


def data(gallery: Path, name: str) -> Any:
    """The values of a data file, which is JSON but for the call around it."""
    text = (gallery / "data" / f"{name}.js").read_text(encoding="ascii")
    begin, end = f'gallery.take("{name}",', ");\n"
    assert text.startswith(begin) and text.endswith(end)
    return json.loads(text[len(begin) : -len(end)])


def written(run: Path, gallery: Path, limit: int = 1000, num_pictured: int = 10) -> Written:
    tables = shown_tables(location_of(run))
    return write_gallery(tables, gallery, title="run", limit=limit, num_pictured=num_pictured, code_version="1")


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 730 pairs of 30 images, in parts of 50 rows."""
    folder = tmp_path_factory.mktemp("large")
    images = [f"{n}.jpg" for n in range(30)]
    digests = write_images(folder / "images", images)
    write_matches(folder / "run", many_rows(730, images, digests), folder / "images")
    return folder / "run"


def test_all_pairs_are_listed_and_their_details_lie_in_files_of_a_hundred(large_run: Path, tmp_path: Path) -> None:
    found = written(large_run, tmp_path / "g")
    listed = data(tmp_path / "g", "table-0/list")
    assert (found.num_pairs, found.num_shown, found.num_pictured, found.num_images) == (730, 730, 10, 30)
    assert listed["number"] == list(range(730)) and len(listed["score"]) == len(listed["source"]) == 730
    pages = [data(tmp_path / "g", f"table-0/pairs-{page}") for page in range(8)]
    assert [len(page) for page in pages] == [100] * 7 + [30]
    assert [pair["id"] for page in pages for pair in page] == [f"{n + 1:09}" for n in range(730)]
    assert {path.name for path in (tmp_path / "g" / "data" / "table-0").iterdir()} == {
        "list.js",
        *(f"pairs-{page}.js" for page in range(8)),
    }
    assert data(tmp_path / "g", "gallery")["tables"] == [{"stage": "match", "on": "photos", "method": "", "pairs": 730}]


def test_of_more_pairs_than_the_limit_the_worst_the_best_and_some_others_are_listed(
    large_run: Path, tmp_path: Path
) -> None:
    found = written(large_run, tmp_path / "g", limit=60, num_pictured=6)
    listed = data(tmp_path / "g", "table-0/list")
    scores = [row["score"] for row in shown_tables(location_of(large_run))[0].rows]
    assert found.num_shown == len(listed["number"]) == 60 and listed["pairs"] == 730
    assert {min(listed["score"]), max(listed["score"])} == {round(min(scores), 4), round(max(scores), 4)}
    assert [round(scores[number], 4) for number in listed["number"]] == listed["score"]
    assert sum(listed["histogram"]) == 730 and sum(pairs for _, pairs, _ in listed["use"]) == 730
    warps = [warp for warp in listed["warp"] if warp >= 0]
    assert sorted(warps) == list(range(6)) == sorted(int(p.stem) for p in (tmp_path / "g" / "warps").iterdir())


def test_a_gallery_written_again_is_the_same(large_run: Path, tmp_path: Path) -> None:
    def digests(gallery: Path) -> dict[str, str]:
        files = [path for path in gallery.rglob("*") if path.is_file()]
        return {str(p.relative_to(gallery)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    for name in ("one", "two"):
        written(large_run, tmp_path / name, limit=50, num_pictured=5)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_names_are_values_and_no_file_is_called_by_one(hostile_gallery: Path) -> None:
    listed = data(hostile_gallery, "table-0/list")
    assert set(HOSTILE) < {name for _, name, _, _ in listed["images"]}
    assert all(path.name.isascii() and "<" not in path.name for path in hostile_gallery.rglob("*"))
    assert data(hostile_gallery, "gallery")["title"] == "<b>run</b>"
    assert "HACKED" not in (hostile_gallery / "index.html").read_text()


def test_layers_beyond_32_and_what_failed_are_kept(hostile_gallery: Path) -> None:
    listed = data(hostile_gallery, "table-0/list")
    assert [0, 2, 33] in listed["layerSets"] and [0, 2, 34] in listed["layerSets"] and listed["numLayers"] == 35
    at = listed["number"].index(40)
    assert listed["score"][at] is None and listed["statuses"][listed["status"][at]] == "image broken"
    [gone] = [image for image in listed["images"] if image[1] == "gone.jpg"]
    assert gone[2].startswith("no picture: ") and "gone.jpg: no such file" in gone[2] and not gone[3]


def test_an_evaluation_has_truth_and_means_by_class(hostile_gallery: Path) -> None:
    listed = data(hostile_gallery, "table-1/list")
    assert listed["scoreName"] == "PCK@0.1 (image)"
    assert listed["metrics"][1] == ["PCK@0.1 (image)", 0.7, 5, [["cats", 0.7, 5]]]
    [first, *_] = data(hostile_gallery, "table-1/pairs-0")
    assert [keypoint[6] for keypoint in first["keypoints"]] == [True, True, False, False]


def test_a_damaged_table_leaves_no_gallery(tmp_path: Path) -> None:
    digests = write_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    write_matches(tmp_path / "run", [match_row(0, "a.jpg", "b.jpg", digests)], tmp_path / "images")
    part = next((tmp_path / "run").rglob("part.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match="damaged since it was written"):
        written(tmp_path / "run", tmp_path / "g")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "images"}


def test_the_command_says_what_it_wrote_and_replaces_nothing(
    large_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gallery", str(large_run), "--limit", "20", "--pictures", "2"]) == 0
    out = capsys.readouterr().out
    assert "20 of 730 pairs, 2 with large pictures" in out and "open in a browser: gallery-run/index.html" in out
    (tmp_path / "gallery-run" / "index.html").write_text("mine")
    assert main(["gallery", str(large_run)]) == 2
    assert "gallery-run: is there already, and is left as it is" in capsys.readouterr().err
    assert (tmp_path / "gallery-run" / "index.html").read_text() == "mine"
    assert main(["gallery", str(large_run), "-o", "other", "--limit", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == "other/index.html"
    assert main(["gallery", str(large_run), "--limit", "0", "-o", "third"]) == 2


def test_an_image_that_is_gone_is_said_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = write_images(tmp_path / "images", ["a.jpg"])
    write_matches(tmp_path / "run", [match_row(0, "a.jpg", "gone\x1b.jpg", digests)], tmp_path / "images")
    assert main(["gallery", str(tmp_path / "run"), "-o", str(tmp_path / "g")]) == 0
    assert "1 image with a remark; the first: gone\\u001b.jpg: no picture" in capsys.readouterr().out


PEAK = """
import resource, sys
from pathlib import Path
from dhpf.pipelines.gallery.tables import shown_tables
from dhpf.pipelines.gallery.writer import write_gallery
from dhpf.storage import location_of
tables = shown_tables(location_of(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_gallery(tables, Path(sys.argv[2]), title="", limit=int(sys.argv[3]), num_pictured=1, code_version="")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    images = ["a.jpg", "b.jpg"]
    digests = write_images(tmp_path / "images", images)
    grown = []
    for count in (1_000, 30_000):
        write_matches(tmp_path / f"run-{count}", many_rows(count, images, digests), tmp_path / "images", part=1000)
        arguments = [str(tmp_path / f"run-{count}"), str(tmp_path / f"g-{count}"), "1000"]
        done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True)
        grown.append(int(done.stdout) / 1024)
    assert grown[1] < grown[0] + 40, grown  # megabytes; the rows alone are 100 as Python values
