from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from dhpf.errors import InputError
from dhpf.images import RGB, ImageError
from dhpf.matcher import Matcher


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher()


def shifted_crops() -> tuple[RGB, RGB]:
    """Two crops of one photo; what lies at (x, y) in the first lies at (x - 40, y - 24) in the second."""
    photo = skimage.data.chelsea()
    return np.ascontiguousarray(photo[:240, :360]), np.ascontiguousarray(photo[24:264, 40:400])


def test_matches_of_shifted_crops(matcher: Matcher) -> None:
    found = matcher.match(*shifted_crops(), limit=100)
    assert 20 <= len(found) <= 100
    assert np.median(found.source_points - found.target_points, axis=0) == pytest.approx([40, 24], abs=4)
    assert found.layers == (5, 8, 10, 11, 15)
    assert (np.diff(found.confidence) <= 0).all()
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()


def test_points_are_original_pixels_however_the_image_is_given(matcher: Matcher, tmp_path: Path) -> None:
    source, target = shifted_crops()
    Image.fromarray(source).save(tmp_path / "source.png")
    wanted = [[150.0, 120.0], [250.0, 180.0]]
    points, valid, confidence = matcher.transfer(source, target, wanted)
    assert valid.all()
    assert points == pytest.approx(np.array(wanted) - [40, 24], abs=8)
    from_path, _, _ = matcher.transfer(tmp_path / "source.png", Image.fromarray(target), wanted)
    assert np.array_equal(points, from_path)
    assert (confidence > 0).all()


def test_points_outside_the_image_are_named(matcher: Matcher) -> None:
    with pytest.raises(InputError, match=r"\(400, 10\) lies outside the source image of 360 x 240"):
        matcher.transfer(*shifted_crops(), [[5, 5], [400, 10]])
    with pytest.raises(InputError, match=r"\(K, 2\)"):
        matcher.transfer(*shifted_crops(), [1, 2, 3])


def test_a_missing_image_is_named(matcher: Matcher) -> None:
    with pytest.raises(ImageError, match="nowhere.jpg: no such file"):
        matcher.match("nowhere.jpg", shifted_crops()[0])


def test_the_right_edge_is_invalid_rather_than_wrong(matcher: Matcher) -> None:
    """No cell covers the last pixels; such a point has no prediction, and NaN says so."""
    source, target = shifted_crops()
    points, valid, _ = matcher.transfer(source, target, [[360.0, 240.0], [359.0, 120.0], [180.0, 120.0]])
    assert valid.tolist() == [True, True, True] or np.isnan(points[~valid]).all()
    assert valid[2]
