"""Carries points of a reference image over to every other image of a folder, and writes them to a CSV file.

    python examples/folder_to_csv.py FOLDER REFERENCE --points "120,80;90,60" -o points.csv

Runs in one process, without Ray: for some hundred images. `dhpf run match-folder` is for more.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from dhpf import Matcher
from dhpf.images import EXTENSIONS, ImageError

COLUMNS = ("image", "point", "x", "y", "confidence", "problem")


def rows(matcher: Matcher, folder: Path, reference: Path, points: list[list[float]]) -> Iterator[tuple[object, ...]]:
    """One row per image and point; of an image that cannot be read, one that says why."""
    for image in sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS):
        if image.resolve() == reference.resolve():
            continue
        try:
            found, valid, confidence = matcher.transfer(reference, image, points)
        except ImageError as error:
            yield image.name, "", "", "", "", str(error)
            continue
        for number, (x, y) in enumerate(found):
            if valid[number]:
                yield image.name, number, f"{x:.1f}", f"{y:.1f}", f"{confidence[number]:.3f}", ""
            else:
                yield image.name, number, "", "", "", "no cell covers this point"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--points", required=True, help="x,y;x,y;... in the reference image's pixels")
    parser.add_argument("--output", "-o", type=Path, required=True)
    options = parser.parse_args()

    points = [[float(number) for number in point.split(",")] for point in options.points.split(";")]
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows(Matcher(), options.folder, options.reference, points))
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
