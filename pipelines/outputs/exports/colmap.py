"""A COLMAP database: images, a camera for each, keypoints and raw matches; two-view geometries are left to COLMAP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dhpf.pipelines.outputs.exports.rows import NOT_MATCHED, Tally, missing_extra, pair_rows
from dhpf.pipelines.outputs.exports.shared_keypoints import ImageKeypoints, SharedKeypoints, shared_keypoints
from dhpf.results import Results

if TYPE_CHECKING:
    import pycolmap

SELF = "an image matched with itself"
TAKEN = "COLMAP keeps one set of matches of two images, and an earlier row has them"

FOCAL_SIDES = 1.2
"""Focal length in larger sides of the image, which COLMAP guesses where a photo does not say it."""


def write(found: Results, path: Path) -> Tally:
    """Writes the database.

    Raises:
        InputError: pycolmap is not installed, or a part is damaged.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise missing_extra("colmap", "pycolmap") from error
    database = pycolmap.Database.open(path)
    try:
        with shared_keypoints(path.with_name(f"{path.name}.scratch")) as keypoints:
            with pycolmap.DatabaseTransaction(database):
                tally = _write_matches(found, keypoints, database)
            with pycolmap.DatabaseTransaction(database):
                for image in keypoints.images():
                    if image.size[0]:  # else no row could read it
                        _write_image(image, database)
    finally:
        database.close()
    return tally


def _write_matches(found: Results, keypoints: SharedKeypoints, database: pycolmap.Database) -> Tally:
    tally = Tally()
    for row in pair_rows(found):
        source, target = keypoints.numbers(row)
        if not row.is_matched:
            tally.leave_out(NOT_MATCHED)
        elif source == target:
            tally.leave_out(SELF)
        elif database.exists_matches(source, target):
            tally.leave_out(TAKEN)
        else:
            matches, _ = keypoints.matches(row)
            database.write_matches(source, target, matches)
            tally.add(len(matches))
    return tally


def _write_image(image: ImageKeypoints, database: pycolmap.Database) -> None:
    import pycolmap

    number, (width, height) = image.number, image.size
    focal_length = FOCAL_SIDES * max(width, height)
    camera = pycolmap.Camera.create_from_model_name(number, "SIMPLE_RADIAL", focal_length, width, height)
    database.write_camera(camera, use_camera_id=True)
    rig = pycolmap.Rig(rig_id=number)
    rig.add_ref_sensor(camera.sensor_id)
    database.write_rig(rig, use_rig_id=True)
    row = pycolmap.Image(name=image.name, camera_id=number, image_id=number)
    database.write_image(row, use_image_id=True)
    frame = pycolmap.Frame(frame_id=number, rig_id=number)
    frame.add_data_id(row.data_id)
    database.write_frame(frame, use_frame_id=True)
    database.write_keypoints(number, image.points)
