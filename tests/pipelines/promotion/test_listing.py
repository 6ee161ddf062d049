"""Rows of versions as a real MLflow store has them; versions without models, since nothing is loaded here."""

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.promotion.listing import COLUMNS, VersionRow, version_rows
from dhpf.pipelines.promotion.registry import Registry
from dhpf.pipelines.tracking.tracker import Tracker

VERDICT = {
    "verdict": "refused",
    "pck a/test": "refused: worse",
    "pck a/test/difference": "-0.031",
    "pck a/test/low": "-0.05",
    "pck a/test/high": "-0.01",
    "speed": "passed: as fast",
    "speed/slowdown": "1",
}
IN_WORDS = "a/test -3.1 [-5.0, -1.0]"


def cells(row: VersionRow) -> dict[str, str]:
    return dict(zip(COLUMNS, row.cells(), strict=True))


def test_rows_say_what_is_known_of_each_version(registry: Registry, tracker: Tracker) -> None:
    registry.write_verdict("m", "2", VERDICT)
    tracker.client.set_model_version_tag("m", "2", "dhpf.metric.val_pck", "0.812")
    registry.promote("m", "3", None)
    registry.promote("m", "1", "3")
    registry.rollback("m")
    _, third, second, first = version_rows(registry, None)["m"]
    assert cells(second) | {"registered": ""} == {
        "version": "2",
        "aliases": "-",
        "registered": "",
        "val PCK": "81.2",
        "verdict": "refused",
        "against the champion": IN_WORDS,
    }
    assert cells(third)["aliases"] == "champion" and cells(third)["verdict"] == "not judged"
    assert cells(first)["verdict"] == "not judged, rolled back" and cells(first)["val PCK"] == "-"
    facts = second.facts()
    assert (facts["name"], facts["version"], facts["val_pck"], facts["verdict"]) == ("m", "2", 0.812, "refused")
    assert facts["differences"] == {"a/test": {"difference": -0.031, "low": -0.05, "high": -0.01}}
    assert [row.facts()["rolled_back"] for row in (third, second, first)] == [False, False, True]


def test_verdicts_of_an_earlier_release_are_shown(registry: Registry, tracker: Tracker) -> None:
    for name, value in VERDICT.items():
        tracker.client.set_model_version_tag("m", "2", f"dhpf.gate.{name}", value)
    _, _, second, _ = version_rows(registry, "m")["m"]
    assert cells(second)["verdict"] == "refused" and cells(second)["against the champion"] == IN_WORDS


def test_no_model_has_no_rows(tracker: Tracker) -> None:
    assert version_rows(Registry(tracker), None) == {}
    with pytest.raises(InputError, match="there is none yet"):
        version_rows(Registry(tracker), "m")
