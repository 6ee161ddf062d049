"""Many pictures on one page."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from dhpf.drawing.page import Page
from dhpf.drawing.pair_page import GAP, MARGIN, shown_size
from dhpf.drawing.style import INK, MUTED, TEXT_PIXELS, font, wrapped
from dhpf.images import RGB

TILE_HEIGHT, MAX_TILE_WIDTH, MIN_TILE_WIDTH = 280, 440, 150
LINE, CAPTION_GAP = 18, 8
MAX_CAPTION_LINES = 2


def contact_sheet(pictures: Sequence[RGB], captions: Sequence[str], columns: int) -> RGB:
    """Pictures in rows from left to right, each with its caption below; a column is as wide as its widest picture.

    Args:
        pictures: (H, W, 3) uint8 each.
        captions: one for each picture, at most two lines are shown.
        columns: pictures in a row.

    Returns:
        (H, W, 3) uint8; without pictures, a page that says so.

    Raises:
        ValueError: there is not one caption for each picture, or no column.
    """
    if len(pictures) != len(captions) or columns < 1:
        raise ValueError(f"{len(pictures)} pictures, {len(captions)} captions, {columns} columns")
    if not pictures:
        page = Page(360, 2 * MARGIN + LINE)
        page.text((MARGIN, MARGIN), "no pictures", colour=MUTED)
        return page.finished()
    tiles = [_Tile(picture) for picture in pictures]
    rows = [range(start, min(start + columns, len(tiles))) for start in range(0, len(tiles), columns)]
    widths = [max(MIN_TILE_WIDTH, *(tile.width for tile in tiles[column::columns])) for column in rows[0]]
    face = font(TEXT_PIXELS)
    lines = [wrapped(text, face, widths[i % columns], MAX_CAPTION_LINES) for i, text in enumerate(captions)]
    image_heights = [max(tiles[i].height for i in row) for row in rows]
    row_heights = [
        height + CAPTION_GAP + LINE * max(len(lines[i]) for i in row)
        for height, row in zip(image_heights, rows, strict=True)
    ]
    page = Page(_total(widths), _total(row_heights))
    for number, row in enumerate(rows):
        top = _start(row_heights, number)
        for column, index in enumerate(row):
            middle = _start(widths, column) + widths[column] / 2
            tiles[index].draw(page, middle, top + image_heights[number] / 2)
            for line_number, line in enumerate(lines[index]):
                at = (middle, top + image_heights[number] + CAPTION_GAP + line_number * LINE)
                page.text(at, line, colour=INK, anchor="ma")
    return page.finished()


class _Tile:
    """A picture at the size at which it is shown."""

    def __init__(self, picture: RGB) -> None:
        self._picture = picture
        self.width, self.height = shown_size(picture, TILE_HEIGHT, MAX_TILE_WIDTH)

    def draw(self, page: Page, middle_x: float, middle_y: float) -> None:
        left, top = round(middle_x - self.width / 2), round(middle_y - self.height / 2)
        page.image(Image.fromarray(self._picture), left, top, (self.width, self.height))


def _start(lengths: Sequence[int], number: int) -> int:
    """Where the row or column of this number begins on the page."""
    return MARGIN + sum(lengths[:number]) + GAP * number


def _total(lengths: Sequence[int]) -> int:
    """The page's length along these rows or columns, margins included."""
    return _start(lengths, len(lengths)) - GAP + MARGIN
