"""Pictures of transferred object masks."""

from __future__ import annotations

from functools import partial

from dhpf.drawing.page import Page, Place
from dhpf.drawing.pair_page import LegendEntry, PairPage
from dhpf.drawing.style import AGREEMENT, RIGHT, WRONG, Colour
from dhpf.images import RGB
from dhpf.records import Points

OPACITY = 0.55


def draw_masks(
    source: RGB,
    target: RGB,
    source_outline: Points,
    target_outline: Points,
    transferred_outline: Points,
    *,
    title: str = "",
) -> RGB:
    """The source's mask, and on the target what the transferred mask covers, misses and adds.

    Args:
        source, target: (H, W, 3) uint8.
        source_outline, target_outline, transferred_outline: (M, 2) polygons in original pixels; one of fewer than
            3 corners is no mask.
        title: a line above.

    Returns:
        (H, W, 3) uint8.
    """
    pair = PairPage(source, target, title, _legend(has_transfer=len(transferred_outline) >= 3))
    page = pair.page
    source_corners = pair.source.places(source_outline)
    true, transferred = pair.target.places(target_outline), pair.target.places(transferred_outline)
    page.tint(page.inside(source_corners) & page.inside(pair.source.corners), RIGHT, OPACITY)
    on_target = page.inside(pair.target.corners)
    is_true, is_transferred = page.inside(true) & on_target, page.inside(transferred) & on_target
    page.tint(is_true & is_transferred, AGREEMENT, OPACITY)
    page.tint(is_true & ~is_transferred, RIGHT, OPACITY)
    page.tint(is_transferred & ~is_true, WRONG, OPACITY)
    page.outline(source_corners, RIGHT, 2)
    page.outline(true, RIGHT, 2)
    page.outline(transferred, WRONG, 2)
    return page.finished()


def _legend(*, has_transfer: bool) -> list[LegendEntry]:
    return [
        LegendEntry("true mask", partial(_swatch, colour=RIGHT)),
        LegendEntry("transferred mask" if has_transfer else "no transferred mask", partial(_swatch, colour=WRONG)),
        LegendEntry("where both agree", partial(_swatch, colour=AGREEMENT)),
    ]


def _swatch(page: Page, at: Place, colour: Colour) -> None:
    page.square(at, 7, colour, OPACITY)
