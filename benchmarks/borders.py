"""`python -m benchmarks.borders`: matches on frames, with and without borders left out.

Puts frames around the images of PF-WILLOW pairs; says which share of the most confident matches lies on a frame, and
how often keypoints are transferred correctly. Writes docs/borders.json after each kind of frame, and leaves out kinds
that the file has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from dhpf.checkpoint import build_network
from dhpf.config import BordersName
from dhpf.frame import points_from_frame, points_to_frame, to_square
from dhpf.images import RGB, decoded
from dhpf.matcher import UNTRAINED
from dhpf.metrics import correct_keypoints, framed_target
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.engine import MatchEngine
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.transfer import PairMatch, cells_of_points
from dhpf.model.usable_cells import EVERY_CELL, UsableCells, within_border
from dhpf.pairs.pf_willow import PFWillow
from dhpf.pipelines.progress import CountedWork
from dhpf.records import PairRecord, Points

DOCS = Path(__file__).parents[1] / "docs"
SHARE = 8
"""A frame is as wide as the longer side divided by this."""

NUM_SURE = 20
"""Matches of a pair, the most confident ones, that are looked at."""

ALPHA = 0.1
PATCHES = (
    (115, 82, 68),
    (194, 150, 130),
    (98, 122, 157),
    (87, 108, 67),
    (214, 126, 44),
    (80, 91, 166),
    (243, 243, 242),
)
"""Colours of a card."""


def framed(image: RGB, colour: int) -> tuple[RGB, int, int]:
    """The image in a frame of one grey level, and where the image's first pixel now is."""
    width = max(image.shape[:2]) // SHARE
    return np.pad(image, ((width, width), (width, width), (0, 0)), constant_values=colour), width, width


def with_card(image: RGB) -> tuple[RGB, int, int]:
    """The image above a black strip with coloured patches."""
    height, width = max(image.shape[:2]) // SHARE, image.shape[1]
    strip = np.zeros((height, width, 3), np.uint8)
    edges = np.linspace(0, width, len(PATCHES) + 1).astype(int)
    for first, last, colour in zip(edges, edges[1:], PATCHES, strict=False):
        strip[height // 5 : -height // 5, first + 3 : last - 3] = colour
    return np.concatenate((image, strip)), 0, 0


FRAMES: Mapping[str, Callable[[RGB], tuple[RGB, int, int]]] = MappingProxyType(
    {
        "none": lambda image: (image, 0, 0),
        "black": lambda image: framed(image, 0),
        "white": lambda image: framed(image, 255),
        "colour card": with_card,
    }
)


@dataclass(frozen=True)
class FramedImage:
    """An image in a frame.

    Attributes:
        inside: width and height of the image in it.
        first: x and y of the image's first pixel.
    """

    pixels: RGB
    inside: tuple[int, int]
    first: Points

    @classmethod
    def of(cls, image: RGB, kind: str) -> FramedImage:
        """An image in a frame of this kind."""
        pixels, x, y = FRAMES[kind](image)
        return cls(pixels, (image.shape[1], image.shape[0]), np.array([x, y], np.float32))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height with the frame."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def shows(self, points: Points) -> NDArray[np.bool_]:
        """(K,) bool, which of (K, 2) points in pixels lie on the image and not on its frame."""
        inside: NDArray[np.bool_] = np.all((points >= self.first) & (points < self.first + self.inside), axis=1)
        return inside


def measured(
    network: HyperpixelNetwork, engine: MatchEngine, images: tuple[RGB, RGB], record: PairRecord, kind: str
) -> Iterator[tuple[BordersName, float, float]]:
    """For each way with borders: the share of the surest matches on a frame, at either end, and the pair's PCK."""
    assert record.source_keypoints is not None and record.target_keypoints is not None
    source, target = (FramedImage.of(image, kind) for image in images)
    squares = torch.stack([to_square(image.pixels, network.config.image_side) for image in (source, target)])
    points = torch.from_numpy(points_to_frame(record.source_keypoints + source.first, source.size))
    wanted = cells_of_points(points[None], torch.ones(1, len(points), dtype=torch.bool))
    true, threshold = framed_target(record.target_keypoints, None, target.inside, False, "keypoint-extent")
    for borders in get_args(BordersName):
        cells = [EVERY_CELL if borders == "kept" else within_border(square, record.pair_id) for square in squares]
        usable = UsableCells(cells[0][None], cells[1][None])
        given = None if usable.is_every else usable
        found, _ = network.match_images(squares, [(0, 1)], wanted, engine, given)
        match = PairMatch.alone(found, None if given is None else cells[0])
        sure = match.mutual.best(NUM_SURE)
        starts = points_from_frame(sure.source_points.numpy(), source.size)
        ends = points_from_frame(sure.target_points.numpy(), target.size)
        moved = match.transfer(points)
        predicted = points_from_frame(moved.points[0].numpy(), target.size) - target.first
        in_frame = points_to_frame(predicted, target.inside)
        correct = correct_keypoints(in_frame, true, moved.valid[0].numpy(), threshold, [ALPHA])
        yield borders, 1 - float((source.shows(starts) & target.shows(ends)).mean()), float(np.mean(correct))


def read(pairs: PFWillow, record: PairRecord) -> tuple[RGB, RGB]:
    """The pair's two images."""
    images = []
    for name in (record.source, record.target):
        with decoded(pairs.read(name), name) as image:
            images.append(np.asarray(image.picture))
    return images[0], images[1]


@torch.inference_mode()
def measure(pairs: PFWillow, every: int, results: Path) -> None:
    """Measures each kind of frame that the results do not have."""
    rows = json.loads(results.read_text()) if results.exists() else {}
    records = [r for r in pairs.pairs("test") if isinstance(r, PairRecord)][::every]
    network, engine = build_network(UNTRAINED), choose_engine()
    for kind in [kind for kind in FRAMES if kind not in rows]:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in get_args(BordersName)}
        with CountedWork(kind, "pair", len(records)) as work:
            for record in records:
                for borders, on_frame, pck in measured(network, engine, read(pairs, record), record, kind):
                    found[borders].append((on_frame, pck))
                work.update(1)
        means = {name: np.mean(values, axis=0).round(4).tolist() for name, values in found.items()}
        rows[kind] = {name: {"on_frame": share, "pck": pck} for name, (share, pck) in means.items()}
        rows[kind]["num_pairs"] = len(records)
        results.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="the folder PF-WILLOW")
    parser.add_argument("--every", type=int, default=30, help="every so many pairs of the 900")
    arguments = parser.parse_args()
    measure(PFWillow(arguments.root), arguments.every, DOCS / "borders.json")


if __name__ == "__main__":
    main()
