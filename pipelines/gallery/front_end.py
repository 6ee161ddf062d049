"""The gallery's page, its script and its style, and how data reach them.

A page that is opened from the disk may fetch no file. Data are therefore scripts that hand JSON over; names lie in
them as text only, and the page's policy allows no script but those beside it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

WEB = Path(__file__).parent / "web"

PAGE = "index.html"

FILES = (PAGE, "gallery.css", "gallery.js")


def copy_front_end(folder: Path) -> None:
    """Copies the page, its script and its style into a folder."""
    for name in FILES:
        shutil.copyfile(WEB / name, folder / name)


def write_data(folder: Path, name: str, value: Any) -> None:
    """Writes JSON values as a script of the gallery.

    Args:
        folder: of the gallery.
        name: of the file below its folder of data, without suffix; the page asks for the values by it.
    """
    path = folder / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    path.write_text(f"gallery.take({json.dumps(name)},{content});\n")
