"""A run to export: five pairs in two blocks, with names that formats may stumble over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.tables import CORRESPONDENCES, MATCHED, table_of
from dhpf.pipelines.outputs.writers import table_file

A, B, C = "=1+1/é 'x' \"y\".jpg".replace(" ", "_"), "ネコ/a,b.jpg", "c.jpg"


def row(
    number: int, source: str, target: str, matches: Sequence[Sequence[float]] = (), **others: Any
) -> dict[str, Any]:
    """A row of correspondences; a match is x, y, x, y and confidence. Without matches it says why."""
    return {
        **dict.fromkeys(CORRESPONDENCES.names),
        **dict.fromkeys(("category", "source_sha256", "target_sha256", "model", "code_version"), ""),
        "number": number,
        "pair_id": f"{number + 1:09}",
        "source": source,
        "target": target,
        "status": MATCHED if matches else "image: damaged",
        "mirrored": False,
        "source_size": [640, 480],
        "target_size": [640, 480] if matches else [0, 0],
        "layers": 0b100110 if matches else 0,
        "score": 0.5 if matches else None,
        "source_points": [match[0:2] for match in matches] if matches else None,
        "target_points": [match[2:4] for match in matches] if matches else None,
        "confidence": [match[4] for match in matches] if matches else None,
        **others,
    }


ROWS = [
    row(0, A, B, [(10.2, 20.4, 30.0, 40.0, 0.9), (5.0, 6.0, 7.0, 8.0, 0.8)], category="@cat"),
    row(1, A, C, [(10.3, 19.6, 1.0, 2.0, 0.7), (10.4, 20.0, 50.0, 60.0, 0.6), (0.0, 0.0, 0.2, -0.3, 0.5)]),
    row(2, C, "lost.jpg"),
    row(3, B, A, [(30.0, 40.0, 5.0, 6.0, 0.4)]),
    row(
        4,
        B,
        C,
        [(1.0, 1.0, 2.0, 2.0, 0.3)],
        given_points=[[3.0, 4.0], [5.0, 6.0]],
        transferred_points=[[7.0, 8.0], [0.0, 0.0]],
        transferred_valid=[True, False],
    ),
]


def written(folder: Path, blocks: Sequence[Sequence[dict[str, Any]]]) -> Path:
    """A complete match output."""
    output = StageOutput(folder)
    output.plan({"stage": "match", "tasks": [f"block-{number}" for number in range(len(blocks))]})
    for number, rows in enumerate(blocks):
        output.commit(f"block-{number}", table_file("part", table_of(rows, CORRESPONDENCES)), {})
    output.finish({"stage": "match"})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run's folder."""
    written(tmp_path / "run" / "match" / "photos", [ROWS[:2], ROWS[2:]])
    return tmp_path / "run"
