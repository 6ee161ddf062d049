"""`python -m benchmarks.hero_picture`: two portraits of two people, matched without any training; writes docs/hero.png.

Both photos are in the public domain and come with installed packages: Eileen Collins (NASA; scikit-image's
astronaut.png, here head and shoulders of it) and Grace Hopper (US Navy; matplotlib's grace_hopper.jpg). The points were
set by hand on the first photo alone; where they lie in the second is what `Matcher()` says, unedited.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import skimage

from dhpf.drawing import TransferredPoints, draw_transferred_points, save_picture
from dhpf.images import read_image
from dhpf.matcher import Matcher

OUT = Path(__file__).parents[1] / "docs" / "hero.png"
SOURCE = Path(skimage.__file__).parent / "data" / "astronaut.png"
TARGET = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
HEAD_AND_SHOULDERS = np.s_[0:330, 60:340]
"""Rows and columns of the first photo that are matched."""

POINTS = {
    "right eye": (143, 101),
    "left eye": (188, 103),
    "nose": (164, 126),
    "right corner of the mouth": (145, 140),
    "left corner of the mouth": (183, 142),
    "chin": (167, 175),
    "right ear": (118, 128),
    "left ear": (215, 133),
}
"""x, y in what is matched of the first photo; right and left are the person's own."""


def main() -> None:
    source, target = read_image(SOURCE)[HEAD_AND_SHOULDERS], read_image(TARGET)
    matcher = Matcher()
    asked = np.array(list(POINTS.values()), dtype=np.float32)
    points = TransferredPoints(asked, *matcher.transfer(source, target, asked))
    for name, (x, y), confidence in zip(POINTS, points.target_points, points.confidence, strict=True):
        print(f"{name:<26} {x:5.0f}, {y:5.0f}  confidence {confidence:.2f}")
    picture = draw_transferred_points(
        source, target, points, matcher.match(source, target), names=("Eileen Collins", "Grace Hopper")
    )
    save_picture(picture, OUT)
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
