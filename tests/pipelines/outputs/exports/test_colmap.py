from collections.abc import Iterator
from pathlib import Path

import pycolmap
import pytest

from dhpf.pipelines.outputs.exports import export
from dhpf.pipelines.outputs.exports.colmap import SELF, TAKEN
from tests.pipelines.outputs.exports.conftest import A, B, C, row, written


@pytest.fixture
def database(run: Path, tmp_path: Path) -> Iterator[pycolmap.Database]:
    tally = export(str(run), "colmap", tmp_path / "out.db")
    assert tally.left_out == {"not matched": 1, TAKEN: 1} and tally.num_matches == 5
    database = pycolmap.Database.open(tmp_path / "out.db")
    yield database
    database.close()


def points_of(database: pycolmap.Database, source: str, target: str) -> list[list[float]]:
    """The matches of a pair as x, y, x, y."""
    images = [database.read_image_with_name(name).image_id for name in (source, target)]
    sources, targets = (database.read_keypoints(image) for image in images)
    return [[*sources[i].tolist(), *targets[j].tolist()] for i, j in database.read_matches(*images)]


def test_pycolmap_reads_the_matches_back(database: pycolmap.Database) -> None:
    assert points_of(database, A, B) == [[10, 20, 30, 40], [5, 6, 7, 8]]
    assert points_of(database, A, C) == [[10, 20, 1, 2], [0, 0, 0, 0]]
    assert points_of(database, C, B) == [[2, 2, 1, 1]], "from either image"
    assert database.num_matched_image_pairs() == 3 and database.num_verified_image_pairs() == 0


def test_each_image_has_a_camera_of_its_size(database: pycolmap.Database) -> None:
    images = {image.name: database.read_camera(image.camera_id) for image in database.read_all_images()}
    assert {name: (camera.width, camera.height) for name, camera in images.items()} == {
        A: (640, 480),
        B: (640, 480),
        C: (640, 480),
    }, "an image that no row could read is left out"
    assert all(camera.focal_length == 1.2 * 640 and not camera.has_prior_focal_length for camera in images.values())
    assert database.num_frames() == database.num_rigs() == 3


def test_an_image_with_itself_is_counted(tmp_path: Path) -> None:
    written(tmp_path / "run", [[row(0, "a", "a", [(1.0, 2.0, 3.0, 4.0, 0.5)])]])
    tally = export(str(tmp_path / "run"), "colmap", tmp_path / "out.db")
    assert tally.left_out == {SELF: 1}
