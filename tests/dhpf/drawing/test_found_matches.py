"""Numbered points on two images: the same number and colour on both, at the right places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dhpf.drawing import TransferredPoints, draw_found_matches, draw_transferred_points
from dhpf.drawing.page import Page
from dhpf.drawing.style import colours_by_place
from dhpf.images import RGB
from dhpf.records import Correspondences, Points
from tests.dhpf.drawing.seen import DARK, LIGHT, SOURCE, TARGET, inside, is_colour, place, points

Words = list[tuple[str, tuple[float, float]]]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    """The texts that are drawn, each with its place."""
    written: Words = []
    draw: Callable[..., None] = Page.text

    def noted(page: Page, at: tuple[float, float], text: str, **look: object) -> None:
        written.append((text, at))
        draw(page, at, text, **look)

    monkeypatch.setattr(Page, "text", noted)
    return written


def found(source: Points, target: Points, layers: tuple[int, ...] = (2, 5)) -> Correspondences:
    return Correspondences(source, target, np.linspace(0.9, 0.4, len(source)).astype(np.float32), layers)


def numbers(words: Words, picture: RGB) -> tuple[dict[int, float], dict[int, float]]:
    """The x of each number that is drawn: on the source, and on the target."""
    places: tuple[dict[int, float], dict[int, float]] = {}, {}
    half = 20 + 400 + 10
    for text, (x, _) in words:
        if text.isdecimal():
            places[x > half][int(text)] = x
    return places


def test_matches_have_the_same_number_and_colour_on_both_images(words: Words) -> None:
    source, target = points((20, 30), (70, 80), (40, 60)), points((30, 20), (120, 60), (75, 50))
    picture = draw_found_matches(SOURCE, TARGET, found(source, target), names=("a.jpg", "b.jpg"))
    here, there = numbers(words, picture)

    assert set(here) == set(there) == {1, 2, 3}
    for index, colour in enumerate(colours_by_place(source)):
        row, column = place(picture, DARK, (100, 100), tuple(source[index]))
        assert is_colour(picture, colour)[row, column]
        assert column == pytest.approx(here[index + 1], abs=1), "the number stands above its point"
        row, column = place(picture, LIGHT, (150, 100), tuple(target[index]))
        assert is_colour(picture, colour)[row, column]
        assert column == pytest.approx(there[index + 1], abs=1)
    written = [text for text, _ in words]
    assert {"source: a.jpg", "target: b.jpg", "layers used: 2, 5"} <= set(written)
    assert any("0.40 to 0.90" in text for text in written), "the sizes are explained"


def test_matches_too_close_for_a_number_are_dots(words: Words) -> None:
    source = points((20, 30), (21, 30), (70, 80))
    target = points((30, 20), (120, 60), (60, 80))
    picture = draw_found_matches(SOURCE, TARGET, found(source, target))
    here, there = numbers(words, picture)

    assert set(here) == set(there) == {1, 2}
    dot = place(picture, LIGHT, (150, 100), (120, 60))
    assert not is_colour(picture, (LIGHT, LIGHT, LIGHT), 30)[dot]


def test_no_line_crosses_from_one_image_to_the_other() -> None:
    source = points((20, 30), (70, 80))
    picture = draw_found_matches(SOURCE, TARGET, found(source, source))
    right = int(np.flatnonzero(is_colour(picture, (DARK, DARK, DARK), 4).sum(axis=0) > 25).max())

    assert (picture[80:400, right + 5 : right + 15] == 255).all()


def test_only_so_many_are_drawn_as_asked_for(words: Words) -> None:
    corners = points((10, 40), (90, 40), (10, 90), (90, 90))
    picture = draw_found_matches(SOURCE, TARGET, found(corners, corners), limit=2)

    assert set(numbers(words, picture)[0]) == {1, 2}
    assert any(text.startswith("2 matches") for text, _ in words)


def test_points_asked_for_keep_their_numbers_and_those_without_prediction_are_marked(words: Words) -> None:
    asked = TransferredPoints(
        points((50, 50), (51, 50), (20, 80)),
        points((60, 50), (np.nan, np.nan), (30, 80)),
        np.array([True, False, True]),
        np.array([0.5, 0.0, 0.3], dtype=np.float32),
    )
    picture = draw_transferred_points(SOURCE, TARGET, asked, found(points(), points()))
    here, there = numbers(words, picture)

    assert set(here) == {1, 2, 3} and set(there) == {1, 3}
    written = [text for text, _ in words]
    assert "no prediction: 2" in written
    assert any(text.startswith("2 points") for text in written)


def test_more_confidence_makes_a_larger_number() -> None:
    def painted(confidence: float) -> int:
        asked = TransferredPoints(
            points((50, 80)), points((75, 80)), np.array([True]), np.array([confidence], np.float32)
        )
        picture = draw_transferred_points(SOURCE, TARGET, asked, found(points(), points()))
        return int(is_colour(inside(picture, DARK), colours_by_place(points((50, 80)))[0]).sum())

    assert painted(0.0) < painted(0.5) < painted(1.0)


@pytest.mark.parametrize("number", [0, 1, 300])
def test_any_number_of_matches_gives_a_picture(number: int, words: Words) -> None:
    spread = (np.random.default_rng(0).random((number, 2)) * (100, 100)).astype(np.float32)
    picture = draw_found_matches(SOURCE, TARGET, found(spread, spread, layers=()), limit=300)

    assert picture.shape[1] > 1500  # three images of 400, 600 and 600 pixels
    assert len(numbers(words, picture)[0]) == len(numbers(words, picture)[1]) <= number
    assert number == 0 or numbers(words, picture)[0]
    assert is_colour(inside(picture, DARK), (DARK, DARK, DARK)).any()
