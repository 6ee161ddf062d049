"""The measurements of benchmarks.ten_million: planning at full size, decoding an image, the size of a result row."""

from __future__ import annotations

import dataclasses
import io
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

import skimage.data
from PIL import Image

from benchmarks.figures import machine
from benchmarks.memory import extra_megabytes
from benchmarks.subject import Subject
from dhpf.config import ModelConfig
from dhpf.frame import to_square
from dhpf.images import decode_image
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import AS_SUITS
from dhpf.pipelines.matching.measured_costs import measure_costs
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.planning.blocks import block_limits, images_within, plan_spans
from dhpf.planning.plan_summary import PlanSummary, num_degrees, summarise
from dhpf.planning.select import Neighbours, choose_pairs

FEATURE_MEMORY_MB = 16_000
"""Memory of a GPU that a block's features may take, of some 140 GB: what the network and a batch need stays free."""

MAX_PAIRS = {"neighbours": None, "neighbours, 2,500 pairs a block": 2_500}
"""Pairs of a block, by the name of the plan; None for what a large collection gets by itself."""

LONG_SIDE = 500
TIMED_IMAGES = 40


def measure(num_images: int, reach: int) -> dict[str, Any]:
    """Counts and cost of planning `num_images` with `reach` neighbours each, and the cost of images and rows."""
    photo = Image.fromarray(skimage.data.coffee())  # type: ignore[no-untyped-call]
    photos = [photo.crop((20 * number, 0, 500 + 20 * number, 400)) for number in range(4)]  # as in a film
    bytes_per_image = Subject("resnet101", 1).describe(1).num_bytes
    encoded = {f"{number}.jpg": _jpeg(photo) for number, photo in enumerate(photos)}
    return {
        "machine": machine() | {"cpus": os.cpu_count()},
        "feature_mb_per_image": round(bytes_per_image / 1e6, 1),
        "plans": {
            name: _planning(num_images, reach, bytes_per_image, max_pairs) for name, max_pairs in MAX_PAIRS.items()
        },
        "cpu_seconds_per_image": round(_decoding(list(encoded.values())), 5),
        **_row_bytes(encoded),
    }


def _planning(num_images: int, reach: int, bytes_per_image: int, max_pairs: int | None) -> dict[str, Any]:
    summaries: list[PlanSummary] = []
    seconds: list[float] = []

    def plan() -> None:
        started = time.process_time()
        images = tuple(f"{number // 1000:05d}/{number:08d}.jpg" for number in range(num_images))
        chosen = choose_pairs(Neighbours(reach), images)
        max_images = images_within(FEATURE_MEMORY_MB * 10**6, bytes_per_image)
        limits = dataclasses.asdict(block_limits(chosen.num_pairs, max_images=max_images, max_pairs=max_pairs))
        summaries.append(summarise(plan_spans(chosen.spans, **limits), num_degrees(chosen.spans, num_images), **limits))
        seconds.append(time.process_time() - started)

    memory = extra_megabytes(plan)
    (summary,) = summaries
    return {
        "num_blocks": summary.num_blocks,
        "num_pairs": summary.num_pairs,
        "num_described": summary.num_images,
        "plan_seconds": round(seconds[0], 1),
        "plan_mb": round(memory),
    }


def _decoding(encoded: list[bytes]) -> float:
    """Median seconds to decode an image and to bring it to the network's size, on one thread."""
    times = []
    for number in range(TIMED_IMAGES):
        started = time.thread_time()
        to_square(decode_image(encoded[number % len(encoded)], "photo"), 240, False)
        times.append(time.thread_time() - started)
    return statistics.median(times)


def _row_bytes(encoded: Mapping[str, bytes]) -> dict[str, float]:
    """Sizes that do not depend on the network, which here is a small one."""
    network = ModelSource(ModelConfig(selection="fixed", layers=(11,))).load(Resources())
    rows = CorrespondenceRows(50, False, "models:/dhpf/1", "code")
    costs = measure_costs(network, choose_engine(), list(encoded), encoded.__getitem__, rows, AS_SUITS)
    return {"bytes_per_pair": round(costs.bytes_per_pair), "bytes_per_block": round(costs.bytes_per_block)}


def _jpeg(photo: Image.Image) -> bytes:
    scale = LONG_SIDE / max(photo.size)
    buffer = io.BytesIO()
    photo.convert("RGB").resize([round(scale * length) for length in photo.size]).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
