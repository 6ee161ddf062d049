from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.gallery.tables import shown_tables
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.storage import location_of
from tests.pipelines.gallery.made_up_run import (
    match_row,
    prediction_row,
    write_evaluation,
    write_images,
    write_matches,
)

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with matches and two evaluated methods."""
    digests = write_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    write_matches(tmp_path / "run", [match_row(0, "a.jpg", "b.jpg", digests)], tmp_path / "images")
    for method in ("all", "last"):
        write_evaluation(tmp_path / "run", [prediction_row(0, "a.jpg", "b.jpg", digests)], method)
    return tmp_path / "run"


def names(place: Path, images: Path | None) -> list[tuple[str, str, str]]:
    tables = shown_tables(location_of(place), None if images is None else str(images))
    return [(table.stage, table.on, table.method) for table in tables]


def test_all_tables_of_a_run_and_those_of_one_output(run: Path, tmp_path: Path) -> None:
    of_match = ("match", "photos", "")
    all_, last = (("evaluate", "warps/test", method) for method in ("all", "last"))
    images = tmp_path / "images"
    assert names(run, images) == [of_match, all_, last]
    assert names(run / "match", None) == [of_match] == names(run / "match" / "photos", None)
    method = run / "evaluate" / "warps" / "test" / "last"
    assert names(method, images) == names(method / "scores", images) == names(method / "predictions", images) == [last]


def test_images_are_read_where_the_run_has_read_them_or_where_they_are_now(run: Path, tmp_path: Path) -> None:
    [table] = shown_tables(location_of(run / "match"))
    assert table.read("a.jpg") == (tmp_path / "images" / "a.jpg").read_bytes()
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="if the images have moved, name their folder by --images"):
        shown_tables(location_of(run / "match"))
    [table] = shown_tables(location_of(run / "match"), str(tmp_path / "moved"))
    assert table.read("a.jpg") == (tmp_path / "moved" / "a.jpg").read_bytes()


def test_where_nothing_says_where_the_images_lie_the_remedy_is_named(run: Path) -> None:
    with pytest.raises(InputError, match="nothing says where the images lie; name their folder by --images"):
        shown_tables(location_of(run / "evaluate"))


def test_a_folder_without_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no complete output of the match or the evaluate stage"):
        shown_tables(location_of(tmp_path))
    StageOutput(tmp_path / "match" / "photos").plan({"stage": "match", "tasks": ["block-000000"]})
    with pytest.raises(InputError, match="holds no complete output"):
        shown_tables(location_of(tmp_path))


def test_a_run_in_a_bucket_is_read(bucket: Bucket, tmp_path: Path) -> None:
    digests = write_images(tmp_path, ["a.jpg", "b.jpg"])
    write_matches(bucket.uri("run"), [match_row(0, "a.jpg", "b.jpg", digests)], tmp_path)
    [table] = shown_tables(location_of(bucket.uri("run")))
    assert [row["source"] for row in table.rows] == ["a.jpg"] and table.read("a.jpg")
