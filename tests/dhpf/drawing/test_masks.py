"""Masks are read back pixel by pixel."""

from __future__ import annotations

from dhpf.drawing import draw_masks
from dhpf.drawing.style import AGREEMENT, RIGHT, WRONG, Colour
from tests.dhpf.drawing.seen import DARK, LIGHT, SOURCE, inside, is_colour, place, plain, points


def blended(grey: int, colour: Colour) -> Colour:
    r, g, b = (round(0.45 * grey + 0.55 * part) for part in colour)
    return r, g, b


def test_masks_show_what_is_covered_missed_and_added() -> None:
    true = points((10, 10), (60, 10), (60, 90), (10, 90))
    transferred = points((40, 10), (90, 10), (90, 90), (40, 90))
    picture = draw_masks(SOURCE, plain(100, 100, LIGHT), true, true, transferred, title="a pair")
    target = inside(picture, LIGHT)
    scale = target.shape[0] / 100

    for x, colour in ((25, RIGHT), (50, AGREEMENT), (75, WRONG)):
        assert is_colour(target, blended(LIGHT, colour))[round(50 * scale), round(x * scale)]
    assert (target[round(50 * scale), round(96 * scale)] == LIGHT).all()
    assert is_colour(picture, blended(DARK, RIGHT))[place(picture, DARK, (100, 100), (35, 50))]


def test_without_a_transferred_outline_the_true_mask_stands_alone() -> None:
    square = points((10, 10), (60, 10), (60, 90), (10, 90))
    target = inside(draw_masks(SOURCE, plain(100, 100, LIGHT), square, square, points()), LIGHT)

    assert not is_colour(target, blended(LIGHT, AGREEMENT)).any()
    assert not is_colour(target, blended(LIGHT, WRONG)).any()
    assert 0.35 < is_colour(target, blended(LIGHT, RIGHT)).mean() < 0.42  # 50 x 80 of 100 x 100, less the line
