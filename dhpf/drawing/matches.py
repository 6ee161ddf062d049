"""Pictures of keypoints: where they were found, and where they should be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dhpf.drawing.page import Page, Place
from dhpf.drawing.pair_page import LegendEntry, PairPage, dots_by_place
from dhpf.drawing.style import INK, MUTED, RIGHT, WRONG, Colour, colours_by_place
from dhpf.images import RGB
from dhpf.records import Points

LINE_WIDTH = 0.44
"""Width of a match's line, as a multiple of the radius of its dots."""


def draw_matches(
    source: RGB,
    target: RGB,
    source_points: Points,
    predicted_points: Points,
    *,
    true_points: Points | None = None,
    valid: NDArray[np.bool_] | None = None,
    correct: NDArray[np.bool_] | None = None,
    title: str = "",
) -> RGB:
    """Source and target side by side with a line per match, a legend below.

    Without `correct`, matches are coloured by their place in the source, so that a wrong match crosses lines of
    other colours. With it, correct matches are blue dots and solid lines, wrong ones orange diamonds and dashed lines.

    Args:
        source, target: (H, W, 3) uint8.
        source_points, predicted_points: (K, 2) in original pixels.
        true_points: (K, 2) where the target points should be; drawn as rings, each joined to its prediction by a line.
        valid: (K,) False for a source point without prediction, which is drawn as a hollow cross on the source alone.
        correct: (K,) whether each prediction is correct.
        title: a line above.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the arguments' lengths disagree.
    """
    given = (predicted_points, true_points, valid, correct)
    if any(part is not None and len(part) != len(source_points) for part in given):
        raise ValueError(f"{len(source_points)} source points, but not as many of what belongs to them")
    everything = np.ones(len(source_points), dtype=bool)
    drawn = (everything if valid is None else valid) & np.isfinite(source_points).all(axis=1)
    drawn = drawn & np.isfinite(predicted_points).all(axis=1)
    radius = _dot_radius(len(source_points))
    legend = _legend(drawn, correct, true_points is not None)
    pair = PairPage(source, target, title, legend)
    starts, ends = pair.source.places(source_points), pair.target.places(predicted_points)
    colours = colours_by_place(source_points) if correct is None else [RIGHT if right else WRONG for right in correct]
    wrong = ~(everything if correct is None else correct)
    order = np.flatnonzero(drawn).tolist()
    for index in order:
        pair.page.line(starts[index], ends[index], colours[index], LINE_WIDTH * radius, dashed=bool(wrong[index]))
    for index in np.flatnonzero(~drawn).tolist():
        if np.isfinite(source_points[index]).all():
            pair.page.hollow_cross(starts[index], radius, MUTED)
    if true_points is not None:
        rings = pair.target.places(true_points)
        for index in order:
            pair.page.line(ends[index], rings[index], INK, 1.4)
            pair.page.ring(rings[index], radius + 3, colours[index])
    for index in order:
        for at in (starts[index], ends[index]):
            _mark(pair.page, at, radius, colours[index], wrong=bool(wrong[index]))
    return pair.page.finished()


def _dot_radius(num_points: int) -> float:
    """The more points, the smaller the dots."""
    return 5.0 if num_points <= 20 else 4.0 if num_points <= 40 else 3.0


def _mark(page: Page, at: Place, radius: float, colour: Colour, *, wrong: bool) -> None:
    if wrong:
        page.diamond(at, radius, colour)
    else:
        page.dot(at, radius, colour)


def _legend(drawn: NDArray[np.bool_], correct: NDArray[np.bool_] | None, has_truth: bool) -> list[LegendEntry]:
    num_drawn, num_missing = int(drawn.sum()), int((~drawn).sum())
    entries = []
    if correct is None:
        several = f"{num_drawn} matches, coloured by place in the source"
        entries.append(LegendEntry({0: "no matches", 1: "1 match"}.get(num_drawn, several), dots_by_place))
    else:
        num_right = int((drawn & correct).sum())
        entries.append(LegendEntry(f"right: {num_right}", lambda page, at: page.dot(at, 5, RIGHT)))
        wrong = LegendEntry(f"wrong: {num_drawn - num_right}", lambda page, at: page.diamond(at, 5, WRONG))
        entries.append(wrong)
    if has_truth:
        entries.append(LegendEntry("true point, joined to its prediction", lambda page, at: page.ring(at, 7, MUTED)))
    if num_missing:
        text = f"no prediction: {num_missing}"
        entries.append(LegendEntry(text, lambda page, at: page.hollow_cross(at, 5, MUTED)))
    return entries
