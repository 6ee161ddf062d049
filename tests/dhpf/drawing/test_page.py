"""Marks on a page stand where they were asked for, with a white edge around them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dhpf.drawing.page import Page
from dhpf.drawing.style import RIGHT, WRONG
from tests.dhpf.drawing.seen import DARK, is_colour, plain


def test_marks_stand_at_their_places_with_a_white_edge() -> None:
    page = Page(100, 60)
    page.image(Image.fromarray(plain(60, 100, DARK)), 0, 0, (100, 60))
    page.dot((30.5, 30.5), 8, RIGHT)
    page.diamond((70.5, 30.5), 6, WRONG)
    drawn = page.finished()

    assert drawn.shape == (60, 100, 3)
    assert is_colour(drawn, RIGHT)[30, 24:37].all()
    assert is_colour(drawn, WRONG)[30, 65:76].all()
    for column in (30, 70):
        assert (drawn[16:30, column].min(axis=1) > 200).any(), "the white edge"
    assert is_colour(drawn, (DARK, DARK, DARK))[5:55, [15, 50, 85]].all()


def test_what_a_polygon_covers_is_tinted_and_nothing_else() -> None:
    page = Page(40, 40)
    corners = [(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)]
    page.tint(page.inside(corners), RIGHT, 1.0)
    drawn = page.finished()

    assert is_colour(drawn, RIGHT)[12:28, 12:28].all()
    assert (drawn[:6] == 255).all() and (drawn[:, 35:] == 255).all()
    assert not np.any(page.inside(corners[:2])), "two corners are no polygon"
