"""What tests of the gallery share: a written gallery of hostile names, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dhpf.pipelines.gallery.tables import shown_tables
from dhpf.pipelines.gallery.writer import write_gallery
from dhpf.storage import location_of
from tests.pipelines.gallery import browser as driver
from tests.pipelines.gallery.made_up_run import (
    HOSTILE,
    failed_row,
    match_row,
    prediction_row,
    write_evaluation,
    write_images,
    write_matches,
)


@pytest.fixture(scope="session")
def hostile_gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of 150 matched pairs of hostile names, one of a failed pair, one of an image that is gone, and an
    evaluation."""
    folder = tmp_path_factory.mktemp("hostile")
    names = [*HOSTILE, "a.jpg", "b.jpg"]
    digests = write_images(folder / "images", names)
    rows = [
        match_row(n, names[n % 6], names[(n + 1 + n // 6) % 6], digests, category=f"<i>{n % 2}</i>") for n in range(150)
    ]
    rows[40] = failed_row(40, "a.jpg", "b.jpg", digests)
    rows[41] = match_row(41, "gone.jpg", "b.jpg", digests)
    write_matches(folder / "run", rows, folder / "images")
    write_evaluation(folder / "run", [prediction_row(n, names[n], names[n + 1], digests) for n in range(5)])
    tables = shown_tables(location_of(folder / "run"), str(folder / "images"))
    where = folder / "gallery"
    write_gallery(tables, where, title="<b>run</b>", limit=1000, num_pictured=30, code_version="1.2")
    return where


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[driver.Browser]:
    """A page of a browser; whatever it complains of fails the test that ends with it."""
    if driver.CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome is installed")
    with driver.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
