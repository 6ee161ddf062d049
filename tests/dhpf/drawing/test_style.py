"""Wrapped text, and colours that tell where a point lies."""

from __future__ import annotations

import itertools

import numpy as np

from dhpf.drawing.style import colours_by_place, font, wrapped
from tests.dhpf.drawing.seen import points


def test_text_is_wrapped_at_words_and_cut_with_an_ellipsis() -> None:
    face = font(13)
    width = face.getlength("three short words")

    assert wrapped("three  short\nwords", face, width, 1) == ["three short words"]
    assert wrapped("three short words again", face, width, 2) == ["three short words", "again"]
    assert wrapped("", face, width, 2) == []
    lines = wrapped("anUnbreakableNameWithoutASingleSpaceInIt" * 3, face, width, 2)
    assert len(lines) == 2 and lines[1].endswith("\N{HORIZONTAL ELLIPSIS}")
    assert max(map(face.getlength, lines)) <= width


def test_colours_follow_the_place_and_grow_lighter() -> None:
    row = points(*[(10 * i, 3 * (i % 2)) for i in range(12)])
    colours = colours_by_place(row)
    lightness = [0.3 * r + 0.59 * g + 0.11 * b for r, g, b in colours]
    order = np.random.default_rng(3).permutation(12)

    assert len(set(colours)) == 12
    assert all(later > earlier for earlier, later in itertools.pairwise(lightness))
    assert colours_by_place(row[order]) == [colours[i] for i in order]
    assert colours_by_place(row[:, ::-1]) == colours  # along y where y extends more
    assert colours_by_place(points()) == []
