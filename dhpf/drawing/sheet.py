"""Many pictures on one page."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from dhpf.drawing.page import Page
from dhpf.drawing.pair_page import GAP, MARGIN, shown_size
from dhpf.drawing.style import INK, MUTED, TEXT_PIXELS, font, wrapped
from dhpf.images import RGB

TILE_HEIGHT, MAX_TILE_WIDTH, MIN_TILE_WIDTH = 280, 440, 150
LINE = 18
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
    sizes = [shown_size(picture, TILE_HEIGHT, MAX_TILE_WIDTH) for picture in pictures]
    widths = [
        max(MIN_TILE_WIDTH, *(width for width, _ in sizes[column::columns]))
        for column in range(min(columns, len(sizes)))
    ]
    face = font(TEXT_PIXELS)
    lines = [wrapped(text, face, widths[i % columns], MAX_CAPTION_LINES) for i, text in enumerate(captions)]
    rows = [range(start, min(start + columns, len(sizes))) for start in range(0, len(sizes), columns)]
    image_heights = [max(sizes[i][1] for i in row) for row in rows]
    caption_heights = [LINE * max(len(lines[i]) for i in row) + 8 for row in rows]
    height = sum(image_heights) + sum(caption_heights) + GAP * (len(rows) - 1) + 2 * MARGIN
    page = Page(sum(widths) + GAP * (len(widths) - 1) + 2 * MARGIN, height)
    top = MARGIN
    for row, image_height, caption_height in zip(rows, image_heights, caption_heights, strict=True):
        left = MARGIN
        for column, index in enumerate(row):
            middle = left + widths[column] / 2
            width, tile_height = sizes[index]
            place = (round(middle - width / 2), top + (image_height - tile_height) // 2)
            page.image(Image.fromarray(pictures[index]), *place, sizes[index])
            for number, line in enumerate(lines[index]):
                page.text((middle, top + image_height + 8 + number * LINE), line, colour=INK, anchor="ma")
            left += widths[column] + GAP
        top += image_height + caption_height + GAP
    return page.finished()
