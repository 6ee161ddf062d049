import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage

from dhpf.images import ImageError, decode_image
from dhpf.pairs.photo_warps import PHOTOS, PhotoWarps, Warp, load_photo, render, stereo_keypoints
from dhpf.records import PairRecord

SMALL = PhotoWarps(views=2)


def test_no_photo_is_in_two_splits() -> None:
    names = [name for split in PHOTOS.values() for name in split]
    assert len(names) == len(set(names))


def test_pairs_are_the_same_every_time_and_their_images_can_be_read() -> None:
    for split in SMALL.splits:
        first, again = list(SMALL.pairs(split)), list(SMALL.pairs(split))
        for pair, twin in zip(first, again, strict=True):
            assert isinstance(pair, PairRecord) and isinstance(twin, PairRecord)
            assert pair.source_keypoints is not None and len(pair.source_keypoints) >= 4
            assert np.array_equal(pair.source_keypoints, twin.source_keypoints)  # type: ignore[arg-type]
    assert SMALL.read("coffee/view001.png") == SMALL.read("coffee/view001.png")
    assert SMALL.read("coffee/view001.png") != PhotoWarps(seed=1).read("coffee/view001.png")


def test_keypoints_are_exact() -> None:
    """A view of the image whose values are its own coordinates says where each of its points came from."""
    height, width = load_photo("coffee").shape[:2]
    warp = SMALL.warp("coffee", 0)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    ramps = np.stack((columns * (255 / width), rows * (255 / height), rows * 0), axis=-1)
    fine = render(ramps, warp)  # type: ignore[arg-type]
    pair = next(SMALL.pairs("train"))
    pair = next(p for p in SMALL.pairs("train") if isinstance(p, PairRecord) and p.pair_id == "coffee-000")
    in_view, in_photo = pair.source_keypoints, pair.target_keypoints
    if "view" in pair.target:
        in_view, in_photo = in_photo, in_view
    assert in_view is not None and in_photo is not None
    for axis, extent in enumerate((width, height)):
        found = scipy.ndimage.map_coordinates(fine[..., axis], (in_view - 0.5).T[::-1], order=1) * extent / 255
        assert np.abs(found - in_photo[:, axis]).max() < 0.1


def test_a_spline_goes_through_its_points() -> None:
    random = np.random.default_rng(0)
    controls = random.uniform(0, 100, (9, 2))
    moved = controls + random.normal(0, 5, (9, 2))
    assert Warp.through(controls, moved)(controls) == pytest.approx(moved)


def test_no_strength_no_warp() -> None:
    warp = PhotoWarps(strength=0).warp("coffee", 3)
    points = np.array([[10.0, 20.0], [200.0, 100.0]])
    assert warp(points) == pytest.approx(points, abs=1e-6)


def test_stereo_points_look_alike() -> None:
    """The right photo around each given point resembles the left one more than at random points."""
    left, right = (load_photo(f"motorcycle_{side}").astype(float).mean(2) for side in ("left", "right"))
    points, matched = stereo_keypoints(12, np.random.default_rng(0))
    shuffled = np.roll(matched, 5, axis=0)

    def distance(targets: np.ndarray) -> float:  # type: ignore[type-arg]
        return float(
            np.mean([np.abs(patch(left, p) - patch(right, q)).mean() for p, q in zip(points, targets, strict=True)])
        )

    def patch(image: np.ndarray, point: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        x, y = np.clip(point, 4, np.array(image.shape[::-1]) - 5).astype(int)
        return image[y - 4 : y + 5, x - 4 : x + 5]

    assert distance(matched) < 0.5 * distance(shuffled)


@pytest.mark.parametrize(
    "name", ["nobody/photo.png", "coffee/view.png", "coffee/../x.png", "coffee/photo.jpg", "coffee"]
)
def test_other_ids_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match="no such image"):
        SMALL.read(name)


def test_views_are_photos_of_the_same_size() -> None:
    assert decode_image(SMALL.read("chelsea/view000.png"), "x").shape == load_photo("chelsea").shape


def test_the_packages_with_photos_are_not_needed_to_import_pair_sources() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('skimage', 'sklearn', 'matplotlib')))\n"
        "import dhpf.pairs\n"
        "dhpf.pairs.open_pair_source('photo_warps', {}).read('coffee/photo.png')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InputError: photo_warps: reads photos of the package skimage, which is not installed" in done.stderr
