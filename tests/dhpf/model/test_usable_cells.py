"""Usable cells: borders that are drawn around a photo, boxes and masks."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from dhpf.errors import InputError
from dhpf.frame import cell_centres, to_square
from dhpf.images import ImageError
from dhpf.model.usable_cells import UsableCells, clear_unusable, within_border, within_part
from dhpf.records import Part

PHOTO = skimage.data.chelsea()[:240, 60:420]


def framed(left: int, top: int, right: int, bottom: int, colour: int = 0) -> Image.Image:
    margins = ((top, bottom), (left, right), (0, 0))
    return Image.fromarray(np.pad(PHOTO, margins, constant_values=colour))


@pytest.mark.parametrize("side", [240, 400])
@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_frame_is_left_out_with_a_cell_beside_it(side: int, colour: int) -> None:
    picture = framed(60, 40, 60, 80, colour)  # of 480 x 360 pixels: 30, 26.7, 30 and 53.3 pixels of the frame of 240
    usable = within_border(to_square(picture, side), "a.png").view(60, 60)
    rows, columns = usable.any(dim=1).nonzero().flatten() * 4, usable.any(dim=0).nonzero().flatten() * 4
    assert usable.sum() == len(rows) * len(columns)
    assert 26.7 + 4 <= rows[0] <= 26.7 + 9 and 240 - 53.3 - 9 <= rows[-1] <= 240 - 53.3 - 4
    assert 30 + 4 <= columns[0] <= 30 + 9 and 240 - 30 - 9 <= columns[-1] <= 240 - 30 - 4


def test_bands_of_several_colours_are_peeled_off_one_after_the_other() -> None:
    banded = np.pad(np.pad(PHOTO, ((30, 0), (0, 0), (0, 0))), ((0, 0), (50, 0), (0, 0)), constant_values=255)
    usable = within_border(to_square(banded, 240), "a.png").view(60, 60)
    assert not usable[:6].any() and not usable[:, :6].any() and usable[9:, 11:].all()


def test_a_photo_without_a_border_is_matched_whole_and_a_noisy_frame_is_one() -> None:
    assert within_border(to_square(PHOTO, 240), "a.png").all()
    noise = np.random.default_rng(0).integers(0, 5, (360, 480, 3), dtype=np.uint8)
    noisy = Image.fromarray(np.asarray(framed(60, 40, 60, 80)) + noise)
    assert not within_border(to_square(noisy, 240), "a.png").view(60, 60)[:7].any()


def test_a_plain_background_is_no_border_though_it_reaches_all_edges() -> None:
    y, x = np.mgrid[:240, :320]
    disc = (x - 160) ** 2 + (y - 120) ** 2 < 80**2
    cut_out = np.where(disc[..., None], PHOTO[:, :320], np.uint8(255))
    assert within_border(to_square(cut_out, 240), "a.png").all()
    in_a_frame = np.pad(cut_out, ((40, 40), (40, 40), (0, 0)))
    usable = within_border(to_square(in_a_frame, 240), "a.png").view(60, 60)
    assert not usable[:7].any() and usable[10:50, 8:52].all()


def test_an_image_of_one_colour_is_refused_by_name() -> None:
    plain = np.full((90, 120, 3), 200, np.uint8)
    with pytest.raises(ImageError, match=r"^image grey\.png: all of one colour, with nothing to match$"):
        within_border(to_square(plain, 240), "grey.png")
    plain[44:46] = PHOTO[:2, :120]
    with pytest.raises(ImageError, match="a border of one colour leaves less than a cell of the grid to match"):
        within_border(to_square(plain, 240), "dot.png")


def test_cells_of_a_box_have_their_centres_in_it() -> None:
    usable = within_part((50, 0, 100, 30), (200, 60), "source_box")
    x, y = cell_centres().T
    assert torch.equal(usable, (x >= 60) & (x <= 120) & (y <= 120))


def test_cells_of_a_mask_have_their_centres_on_it() -> None:
    mask = np.zeros((120, 480), dtype=np.bool_)
    mask[20:40, 240:] = True
    x, y = cell_centres().T
    assert torch.equal(within_part(mask, (480, 120), "source_mask"), (x >= 120) & (y >= 40) & (y < 80))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((50, 0, 210, 30), "target_box: 50,0,210,30 lies outside the image of 200 x 60 pixels"),
        (
            (51, 1, 53, 30),
            "target_box: holds no point of the grid that is matched, whose points are 3.33 x 1 pixels",
        ),
        (np.zeros((60, 200), np.bool_), "target_box: holds no point of the grid"),
        (np.ones((60, 100), np.bool_), "target_box: a mask of 100 x 60 pixels, but the image has 200 x 60"),
    ],
)
def test_a_part_that_leaves_nothing_is_refused(part: Part, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        within_part(part, (200, 60), "target_box")


def test_pairs_have_the_cells_of_their_images() -> None:
    usable = torch.rand(3, 3600, generator=torch.Generator().manual_seed(0)) < 0.9
    usable[1] = True
    cells = UsableCells.of_images(usable, [(0, 1), (1, 1)])
    assert torch.equal(cells.source, usable[[0, 1]]) and torch.equal(cells.target, usable[[1, 1]])
    assert not cells.is_every and cells[1:2].is_every
    none, votes = cells.votes(torch.zeros(2, 0), torch.full((2, 3600), 0.5))
    assert torch.equal(none, usable[[0, 1]].float()) and torch.equal(votes, usable[[1, 1]] * 0.5)
    matches = torch.ones(2, 3600, 3600)
    clear_unusable(matches, cells.source, cells.target)
    assert torch.equal(matches[0].bool(), usable[0][:, None] & usable[1])
