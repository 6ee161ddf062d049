"""The page on accuracy shows the committed rows, and a method's figures are those of its seeds' rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy_page import BEGIN, END, tables, write_page
from benchmarks.accuracy_rows import CHOSEN, SPARSE, Row, rows

DOCS = Path(__file__).parents[2] / "docs"


def outcome(base: float) -> dict[str, Any]:
    shares = {"0.05": base, "0.1": base + 20, "0.15": base + 30}
    return {"pck": {"keypoint-extent": shares, "legacy-padded": shares}, "milliseconds": 50.0, "layers": 3.0}


def test_the_page_shows_the_rows_of_the_file() -> None:
    found = json.loads((DOCS / "accuracy.json").read_text())
    page = (DOCS / "accuracy.md").read_text()
    assert page.split(BEGIN)[1].split(END)[0] == tables(found, found["rows"])


def test_every_row_of_the_file_is_one_that_the_command_measures() -> None:
    planned = {way.name for row in rows() for way in ((row.read_out("cell"), row.read_out("soft")))}
    assert set(json.loads((DOCS / "accuracy.json").read_text())["rows"]) <= planned


def test_a_learned_method_has_mean_and_spread_over_its_seeds(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    path.with_suffix(".md").write_text(f"before\n{BEGIN}old\n{END}after\n")
    settings = SPARSE | CHOSEN["taught"]
    found = {Row("pf-willow", "taught", True, settings, seed).name: outcome(40 + seed) for seed in (0, 1, 2)}
    found[Row("pf-willow", "untaught", False, CHOSEN["untaught"]).name] = outcome(30)
    path.write_text(json.dumps({"rows": found}))

    write_page(path)

    willow = json.loads(path.read_text())["pf-willow"]
    assert set(willow) == {"jointly-taught", "alone-untaught"}
    assert willow["alone-untaught"]["keypoint-extent"] == {"0.05": 30, "0.1": 50, "0.15": 60}
    taught = willow["jointly-taught"]
    assert taught["seeds"] == [0, 1, 2]
    assert taught["legacy-padded"]["0.1"] == pytest.approx(61) and taught["spread"]["legacy-padded"]["0.1"] == 1
    page = path.with_suffix(".md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert "41.0 ± 1.0 / 61.0 ± 1.0 / 71.0 ± 1.0" in page and path.with_suffix(".png").is_file()
