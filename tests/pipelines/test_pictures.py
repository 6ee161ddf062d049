"""Pictures of results: which numbers and words they show, for few and many pairs and classes."""

from __future__ import annotations

import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from dhpf.pipelines.layer_search.beam import ScoredSet
from dhpf.pipelines.pictures import (
    class_picture,
    comparison_picture,
    search_baselines,
    search_picture,
)
from dhpf.pipelines.stages.evaluate import MethodScores
from dhpf.pipelines.stages.search import SearchResult
from tests.dhpf.drawing.seen import all_text, assert_nothing_is_cut_off

METRIC = "PCK@0.1 image"
FOUND = SearchResult(
    "photos/val", METRIC, ([ScoredSet((0,), 0.5), ScoredSet((1,), 0.7)], [ScoredSet((0, 1), 0.8)]), 2, 16
)


def scores(method: str, classes: dict[str, float], whole: float = 0.5) -> MethodScores:
    rows = [{"number": n, "metric": METRIC, "value": value} for n, value in enumerate(classes.values())]
    table = pa.Table.from_pylist(rows) if rows else pa.table({"metric": pa.array([], pa.string())})
    of_class = {f"{METRIC}/class/{name}": value for name, value in classes.items()}
    means = {METRIC: whole} if classes else {}
    return MethodScores("photos/test", method, table, table, {**means, **of_class, "layers": 3.0, "seconds": 0.1})


@pytest.mark.parametrize("num_classes", [0, 1, 5, 101])
def test_classes_of_any_number_are_named_in_words_and_percent(num_classes: int) -> None:
    classes = {f"sea_horse {n}": 0.25 for n in range(num_classes)}
    picture = class_picture([scores("dynamic", classes), scores("last", classes, 0.4)])
    assert isinstance(picture, Figure)
    words = all_text(picture)

    assert_nothing_is_cut_off(picture)
    assert ("nothing to show" in words) == (num_classes == 0)
    if num_classes:
        assert {"all pairs", "sea horse 0", "25.0", "50.0", "40.0", "dynamic", "last"} <= set(words)
        assert "Methods on photos/test by class: PCK@0.1 (image), %" in [" ".join(text.split()) for text in words]


def test_methods_are_compared_in_percent_without_stored_names() -> None:
    picture = comparison_picture([scores("dynamic", {"cat": 0.5}, 0.625)], "Methods")
    assert isinstance(picture, Figure)
    words = all_text(picture)

    assert {"PCK@0.1 (image)", "62.5"} <= set(words)
    assert METRIC not in words and "layers" not in words


def test_a_search_gives_values_to_compare_a_training_with() -> None:
    assert search_baselines(FOUND) == {
        "best single layer 1 (untrained, 16 pairs)": 0.7,
        "searched layers 0, 1 (untrained, 16 pairs)": 0.8,
    }


def test_the_path_of_a_search_is_labelled_in_words() -> None:
    picture = search_picture(FOUND)
    assert isinstance(picture, Figure)

    assert {"PCK@0.1 (image), %", "Search for layers on 16 pairs of photos/val", "80.0"} <= set(all_text(picture))
