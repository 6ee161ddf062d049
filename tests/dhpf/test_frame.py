import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import Resize

from dhpf.frame import (
    NUM_CELLS,
    box_to_frame,
    cell_centres,
    covering_cells,
    interpolation_matrix,
    interpolation_taps,
    nearest_cells,
    points_from_frame,
    points_to_frame,
    to_square,
    transfer_points,
)


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


def test_cells_lie_four_pixels_apart_row_by_row() -> None:
    centres = cell_centres()
    assert centres.shape == (NUM_CELLS, 2)
    assert centres[1].tolist() == [4, 0]
    assert centres[60].tolist() == [0, 4]
    assert centres[-1].tolist() == [236, 236]


def test_a_box_contains_its_bounds() -> None:
    covering = covering_cells(torch.tensor([[5.0, 0.0], [5.1, 0.0], [120.0, 120.0]]))
    assert covering[0, 0]
    assert not covering[1, 0]
    # 120 lies within 5 px of the centres 116, 120 and 124 on each axis.
    assert covering[2].sum() == 9


def test_a_point_beyond_all_boxes_is_covered_by_none() -> None:
    covering = covering_cells(torch.tensor([[242.0, 100.0]]))
    assert not covering.any()
    moved, valid = transfer_points(torch.tensor([[[242.0, 100.0]]]), covering[None], torch.zeros(1, NUM_CELLS, 2))
    assert not valid.item()
    assert torch.isfinite(moved).all()


def test_the_first_of_equally_near_cells_counts() -> None:
    assert nearest_cells(torch.tensor([[2.0, 0.0], [2.1, 0.0], [2.0, 2.0]])).tolist() == [0, 1, 0]


def test_points_move_by_the_mean_shift_of_their_cells() -> None:
    points = torch.tensor([[[2.0, 0.0]]])
    covering = covering_cells(points)
    target_points = cell_centres()[None].clone()
    assert set(covering[0, 0].nonzero().flatten().tolist()) == {0, 1, 60, 61}
    target_points[0, 0, 0] = 12  # cell 0 moves by 12 px, the other three stay
    moved, valid = transfer_points(points, covering, target_points)
    assert moved[0, 0].tolist() == [2.0 + 12 / 4, 0.0]
    assert valid.all()


def test_interpolation_is_torchs_own() -> None:
    for side in (2, 8, 13, 15, 30, 59, 60):
        maps = torch.rand(1, 1, side, side)
        matrix = interpolation_matrix(side, maps)
        ours = matrix @ maps[0, 0] @ matrix.T
        torchs = F.interpolate(maps, size=(60, 60), mode="bilinear", align_corners=True)[0, 0]
        assert torch.allclose(ours, torchs, atol=1e-6)
        for y, (lower, weight) in enumerate(interpolation_taps(matrix)):
            assert float(matrix[y, lower + 1]) == weight
            assert abs(float(matrix[y, lower]) - (1 - weight)) < 1e-6
