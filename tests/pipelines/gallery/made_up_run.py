"""Runs for tests of the gallery: real outputs of match and evaluate, whose rows are made up."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.tables import CORRESPONDENCES, MATCHED, PREDICTIONS, SCORES, layer_mask, table_of
from dhpf.pipelines.outputs.writers import table_file
from dhpf.planning.blocks import block_name
from dhpf.storage import Location, location_of

SIZE = (60, 40)

HOSTILE = (
    "<img src=x onerror=document.title='HACKED'>.jpg",
    """it's "quoted" & <b>bold<!--.jpg""",
    "кошка 猫 \u202egpj.jpg",
    "</script><script>document.title='HACKED'.jpg",
)
"""File names that would be markup if they were not text."""

POINTS = [[5.0, 5.0], [30.0, 10.0], [50.0, 30.0], [10.0, 35.0]]
CONFIDENCE = [0.9, 0.8, 0.6, 0.4]


def write_images(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Writes an image of a colour of its own for each name; the digests by name."""
    digests = {}
    for number, name in enumerate(names):
        buffer = io.BytesIO()
        Image.new("RGB", SIZE, (40 * number % 256, 90, 200 - 30 * number % 200)).save(buffer, "JPEG")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(buffer.getvalue())
        digests[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
    return digests


def pair(number: int, source: str, target: str, digests: dict[str, str], **more: Any) -> dict[str, Any]:
    """The columns that rows of all tables have."""
    return {
        "number": number,
        "pair_id": f"{number + 1:09}",
        "category": "",
        "source": source,
        "target": target,
        "status": MATCHED,
        "source_sha256": digests.get(source, ""),
        "target_sha256": digests.get(target, ""),
        "mirrored": False,
        "source_size": SIZE,
        "target_size": SIZE,
        "layers": layer_mask([0, 2, 33 + number % 2]),
    } | more


def match_row(number: int, source: str, target: str, digests: dict[str, str], **more: Any) -> dict[str, Any]:
    """A row of correspondences with four matches, each moved by three pixels to the right."""
    matches = {
        "score": 0.1 * (number % 10),
        "source_points": POINTS,
        "target_points": [[x + 3, y] for x, y in POINTS],
        "confidence": CONFIDENCE,
        "model": "m",
        "code_version": "1",
    }
    return pair(number, source, target, digests) | matches | more


def failed_row(number: int, source: str, target: str, digests: dict[str, str]) -> dict[str, Any]:
    """A row of a pair that could not be matched."""
    more = {"status": "image broken", "layers": 0, "model": "m", "code_version": "1"}
    return pair(number, source, target, digests, **more)


def write_matches(run: Path | str | Location, rows: Sequence[dict[str, Any]], images: Path, part: int = 50) -> None:
    """The output of the match stage for a collection called photos, in parts of so many rows."""
    output = StageOutput(location_of(run) / "match" / "photos")
    blocks = [rows[begin : begin + part] for begin in range(0, len(rows), part)]
    output.plan({"stage": "match", "tasks": [block_name(number) for number in range(len(blocks))]})
    for number, block in enumerate(blocks):
        output.commit(block_name(number), table_file("part", table_of(block, CORRESPONDENCES)), {})
    output.finish({"stage": "match", "on": "photos", "images": str(images), "seconds": 12.3, "code_version": "1.2"})


def prediction_row(number: int, source: str, target: str, digests: dict[str, str], **more: Any) -> dict[str, Any]:
    """A row of predictions: of four keypoints the first two exact, one far off, one without a prediction."""
    predicted = [*POINTS[:2], [5.0, 35.0], [0.0, 0.0]]
    keypoints = {
        "seconds": 0.25,
        "source_keypoints": POINTS,
        "target_keypoints": POINTS,
        "predicted_keypoints": predicted,
        "valid": [True, True, True, False],
        "confidence": CONFIDENCE,
        "matches_source": POINTS,
        "matches_target": POINTS,
    }
    return pair(number, source, target, digests, category="cats") | keypoints | more


def write_evaluation(run: Path, rows: Sequence[dict[str, Any]], method: str = "all") -> None:
    """The predictions and scores of the evaluate stage on a shard set of which no shard is left."""
    root = location_of(run) / "evaluate" / "warps" / "test" / method
    predictions, scores = StageOutput(root / "predictions"), StageOutput(root / "scores")
    predictions.plan({"stage": "evaluate", "on": "warps/test", "tasks": ["block-000000"]})
    predictions.commit("block-000000", table_file("part", table_of(rows, PREDICTIONS)), {})
    predictions.finish({"stage": "evaluate", "num_pairs": len(rows), "seconds": 1.0, "code_version": "1.2"})
    values = [
        {"number": row["number"], "pair_id": row["pair_id"], "category": row["category"], "metric": metric, "value": v}
        for row in rows
        for metric, v in (("PCK@0.05 image", 0.25), ("PCK@0.1 image", 0.5 + 0.1 * (row["number"] % 5)))
        if row["status"] == MATCHED
    ]
    scores.plan({"stage": "evaluate", "tasks": ["scores"]})
    scores.commit("scores", table_file("scores", table_of(values, SCORES)), {})
    scores.finish({"stage": "evaluate", "code_version": "1.2"})


def many_rows(count: int, images: Sequence[str], digests: dict[str, str]) -> list[dict[str, Any]]:
    """So many rows of pairs of these images, of five classes, with scores and layers at random."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        source, target = (images[k] for k in random.choice(len(images), 2, replace=False))
        layers = layer_mask([0, *random.choice(17, 3).tolist()])
        more = {"score": float(random.random()), "category": f"class {number % 5}", "layers": layers}
        rows.append(match_row(number, source, target, digests, **more))
    return rows
