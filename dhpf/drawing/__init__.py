"""Pictures of matches, warps, masks, layer selections and scores; one palette, one font, legible at a glance.

Images are (H, W, 3) uint8 arrays; points are (x, y) in an image's original pixels. Pictures of images are such arrays
again, charts are matplotlib figures; `save_picture` writes both.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from matplotlib.figure import Figure
from PIL import Image

from dhpf.drawing.charts import draw_differences, draw_layer_selection, draw_pck_bars
from dhpf.drawing.class_bars import draw_class_bars
from dhpf.drawing.curves import draw_curves
from dhpf.drawing.figures import take_names_literally
from dhpf.drawing.found_matches import TransferredPoints, draw_found_matches, draw_transferred_points
from dhpf.drawing.layer_search import draw_layer_search
from dhpf.drawing.masks import draw_masks
from dhpf.drawing.matches import draw_matches
from dhpf.drawing.sheet import contact_sheet
from dhpf.drawing.warp import draw_warp, warp_source_onto_target
from dhpf.drawing.words import in_words
from dhpf.images import RGB

__all__ = [
    "Picture",
    "TransferredPoints",
    "contact_sheet",
    "draw_class_bars",
    "draw_curves",
    "draw_differences",
    "draw_found_matches",
    "draw_layer_search",
    "draw_layer_selection",
    "draw_masks",
    "draw_matches",
    "draw_pck_bars",
    "draw_transferred_points",
    "draw_warp",
    "in_words",
    "save_picture",
    "warp_source_onto_target",
]

Picture = RGB | Figure

CHART_DPI = 130


def save_picture(picture: Picture, path: str | Path | BinaryIO) -> None:
    """Writes a picture as PNG to a path, whose folder must exist, or to an open file."""
    if isinstance(picture, Figure):
        take_names_literally(picture)
        picture.savefig(path, format="png", dpi=CHART_DPI, facecolor="white")
    else:
        Image.fromarray(picture).save(path, format="PNG")
