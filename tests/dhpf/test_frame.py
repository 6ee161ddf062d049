import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torchvision.transforms import Resize

from dhpf.frame import box_to_frame, points_from_frame, points_to_frame, to_square


def test_resizing_is_torchvisions() -> None:
    photo = skimage.data.chelsea()
    theirs = np.asarray(Resize((240, 240))(Image.fromarray(photo)))
    assert np.array_equal(to_square(photo, 240).permute(1, 2, 0).numpy(), theirs)
    assert torch.equal(to_square(photo, 240, mirrored=True), to_square(photo, 240).flip(2))


@pytest.mark.parametrize("mirrored", [False, True])
def test_points_go_to_the_frame_and_back(mirrored: bool) -> None:
    points = np.array([[0, 0], [120, 30], [480, 300]], np.float32)
    framed = points_to_frame(points, (480, 300), mirrored)
    assert framed[1].tolist() == [180 if mirrored else 60, 24]
    assert points_from_frame(framed, (480, 300), mirrored) == pytest.approx(points)


def test_a_mirrored_point_stays_on_its_pixel() -> None:
    image = np.zeros((240, 240, 3), np.uint8)
    image[100, 60] = 255
    x, y = points_to_frame(np.array([[60.5, 100.5]], np.float32), (240, 240), mirrored=True)[0]
    assert to_square(image, 240, mirrored=True)[0, int(y), int(x)] == 255


def test_boxes_scale_by_side() -> None:
    assert box_to_frame((48, 30, 480, 300), (480, 300)) == pytest.approx((24, 24, 240, 240))
