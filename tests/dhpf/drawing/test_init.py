"""Pictures are written to files, and importing the package imports no more than it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dhpf.drawing import draw_curves, draw_matches, save_picture
from dhpf.images import read_image
from tests.dhpf.drawing.seen import SOURCE, TARGET, points


def test_pictures_and_charts_are_saved_as_png(tmp_path: Path) -> None:
    picture = draw_matches(SOURCE, TARGET, points((5, 5)), points((5, 5)))
    save_picture(picture, tmp_path / "picture.png")
    save_picture(draw_curves({"loss": [(1, 1)]}, "epoch", "loss", "Training"), tmp_path / "chart")

    np.testing.assert_array_equal(read_image(tmp_path / "picture.png"), picture)
    assert read_image(tmp_path / "chart").shape[1] == pytest.approx(6.4 * 130, abs=1)


def test_drawing_needs_neither_torch_nor_a_screen() -> None:
    code = "import sys, dhpf.drawing; print([m for m in ('torch', 'ray', 'matplotlib.pyplot') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "[]"
