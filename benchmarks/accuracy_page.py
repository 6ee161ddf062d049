"""The tables and the picture of docs/accuracy.md, made from the rows of docs/accuracy.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy_measures import ALPHAS, Percent
from benchmarks.accuracy_rows import CHOSEN, PUBLISHED, SEEDS, SETTINGS, SPARSE, Row
from dhpf.drawing import draw_curves, save_picture

BEGIN, END = "<!-- tables: python -m benchmarks.accuracy -->\n", "<!-- end of the tables -->\n"

METHODS = {
    "alone-untaught": ("untaught", False),
    "alone-taught": ("taught", False),
    "jointly-untaught": ("untaught", True),
    "jointly-taught": ("taught", True),
    "searched": ("searched", False),
    "dynamic": ("dynamic", False),
}
"""Model and whether it matches jointly, by the name of a method in docs/accuracy.json."""

LEARNED = ("taught", "dynamic")
COLUMNS = (
    ("pf-pascal-part", "image", "PF-PASCAL part, image 0.05 / 0.1 / 0.15"),
    ("pf-willow", "keypoint-extent", "PF-WILLOW, keypoint-extent"),
    ("pf-willow", "legacy-padded", "PF-WILLOW, legacy-padded"),
)
Found = Mapping[str, Mapping[str, Any]]
"""Outcomes by the name of a row."""


def write_page(path: Path) -> None:
    """Adds the methods' summary to the file of rows, and writes the tables and the picture beside it."""
    found: Found = json.loads(path.read_text())["rows"]
    summary = {benchmark: dict(_methods(found, benchmark)) for benchmark in ("pf-willow", "pf-pascal-part")}
    path.write_text(json.dumps(summary | {"rows": found}, indent=1) + "\n")
    page = path.with_suffix(".md")
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + BEGIN + tables(summary, found) + END + rest.split(END)[1])
    _draw(summary["pf-willow"], path.with_suffix(".png"))


def _methods(found: Found, benchmark: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each method that was measured with the chosen settings, with the mean and the spread over its seeds."""
    for method, (model, is_joint) in METHODS.items():
        settings = SPARSE | CHOSEN[model] if is_joint else CHOSEN[model]
        seeds = SEEDS if model in LEARNED else (None,)
        rows = {seed: Row(benchmark, model, is_joint, settings, seed).name for seed in seeds}
        outcomes = {seed: found[name] for seed, name in rows.items() if name in found}
        if not outcomes:
            continue
        of_seeds = list(outcomes.values())
        entry: dict[str, Any] = _over(of_seeds, statistics.fmean)
        entry["layers"] = round(statistics.fmean(outcome["layers"] for outcome in of_seeds), 1)
        entry["milliseconds"] = round(statistics.fmean(outcome["milliseconds"] for outcome in of_seeds), 1)
        if model in LEARNED:
            entry["seeds"] = list(outcomes)
            entry["spread"] = _over(of_seeds, statistics.stdev) if len(outcomes) > 1 else None
        yield method, entry


def _over(outcomes: Sequence[Mapping[str, Any]], how: Any) -> Percent:
    """PCK by threshold and alpha, over several seeds."""
    return {
        threshold: {
            alpha: round(how([outcome["pck"][threshold][alpha] for outcome in outcomes]), 2) for alpha in shares
        }
        for threshold, shares in outcomes[0]["pck"].items()
    }


def tables(summary: Mapping[str, Mapping[str, Any]], found: Found) -> str:
    """All tables, as Markdown.

    Args:
        summary: the methods of each benchmark, as the file holds them.
    """
    measured = [method for method in METHODS if any(method in of_set for of_set in summary.values())]
    lines = ["", *_table(("method", "layers", "seeds"), [_summary_row(method, summary) for method in measured])]
    for method in ("alone-untaught", "jointly-untaught", "alone-taught", "jointly-taught"):
        rows = list(_settings_rows(method, found))
        if rows:
            lines += ["", f"{_TITLES[method]}", "", *_table(("settings", "validation, image", "CPU ms"), rows)]
    return "\n".join(lines) + "\n\n"


_TITLES = {
    "alone-untaught": "Layers 5, 11, 15 as they are, each pair alone:",
    "jointly-untaught": "The same, jointly through 8 others:",
    "alone-taught": "Taught with the chosen settings, seed 0, each pair alone; the settings are those of matching:",
    "jointly-taught": "The same, jointly through 8 others:",
}


def _table(first: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    titles = [*first, *(title for *_, title in COLUMNS)]
    lines = [titles, ["---"] * len(titles), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _summary_row(method: str, summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    entries = [summary[benchmark].get(method) for benchmark, *_ in COLUMNS]
    first: Mapping[str, Any] = next((entry for entry in entries if entry), {})
    seeds = ", ".join(map(str, first.get("seeds", []))) or "-"
    shown = [
        _shown(entry[threshold], (entry.get("spread") or {}).get(threshold)) if entry else "-"
        for entry, (_, threshold, _) in zip(entries, COLUMNS, strict=True)
    ]
    return [f"`{method}`", f"{first.get('layers', 0):g}", seeds, *shown]


def _settings_rows(method: str, found: Found) -> Iterator[list[str]]:
    model, is_joint = METHODS[method]
    seed = SEEDS[0] if model in LEARNED else None
    choices = [SPARSE | settings for settings in SETTINGS] if is_joint else SETTINGS
    for settings in [PUBLISHED, *choices] if is_joint else choices:
        rows = {name: found.get(Row(name, model, is_joint, settings, seed).name) for name in _BENCHMARKS}
        if not rows["pf-willow"] and not rows["validation"]:
            continue
        validation, willow = rows["validation"], rows["pf-willow"]
        yield [
            _in_words(settings),
            _shown(validation["pck"]["image"]) if validation else "-",
            f"{willow['milliseconds']:.0f}" if willow else "-",
            *(_shown(of["pck"][threshold]) if (of := rows[name]) else "-" for name, threshold, _ in COLUMNS),
        ]


_BENCHMARKS = ("validation", "pf-willow", "pf-pascal-part")


def _in_words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in settings.items()) or "as published"


def _shown(shares: Mapping[str, float], spread: Mapping[str, float] | None = None) -> str:
    alphas = [f"{alpha:g}" for alpha in ALPHAS]
    if spread is None:
        return " / ".join(f"{shares[alpha]:.1f}" for alpha in alphas)
    return " / ".join(f"{shares[alpha]:.1f} ± {spread[alpha]:.1f}" for alpha in alphas)


def _draw(methods: Mapping[str, Any], out: Path) -> None:
    """PCK of each method by alpha."""
    curves = {
        method: [(alpha, entry["keypoint-extent"][f"{alpha:g}"]) for alpha in ALPHAS]
        for method, entry in methods.items()
    }
    title = "PF-WILLOW, 900 pairs: PCK by the share of the keypoints' extent"
    save_picture(draw_curves(curves, "share of the keypoints' extent", "PCK, %", title), out)
