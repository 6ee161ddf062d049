"""Metrics of the stages' work, which Ray hands to Prometheus; nothing is recorded in a process outside Ray.

infra/monitoring/metrics.yaml lists the same names, types and labels for alerts and dashboard. Recording only changes
numbers in this process's memory; Ray's agent on each node collects them every few seconds.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Literal

StageName = Literal["shard", "search", "train", "evaluate", "match"]

Reason = Literal["image", "points", "crash", "row", "block"]
"""Why something was left out: an image is missing, damaged or none; keypoints, box or outline lie outside their image;
an image or a pair ended its worker's process; a row of the pair source is no usable pair; a whole block stopped."""

BLOCK_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
"""Limits between which the seconds of a block are counted; most blocks are planned to take a minute or a few."""


@dataclass(frozen=True)
class Metric:
    """What Prometheus knows of a metric besides its numbers; see metrics.yaml for what they mean."""

    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...] = ("stage",)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "dhpf_pairs_total": Metric("counter"),
        "dhpf_images_described_total": Metric("counter"),
        "dhpf_images_reused_total": Metric("counter"),
        "dhpf_bytes_read_total": Metric("counter"),
        "dhpf_stage_seconds": Metric("histogram"),
        "dhpf_errors_total": Metric("counter", ("stage", "reason")),
        "dhpf_blocks_left": Metric("gauge"),
        "dhpf_gpu_memory_bytes": Metric("gauge"),
    }
)


@dataclass(frozen=True)
class Work:
    """What was done for one block, or in one training step.

    Attributes:
        num_pairs: pairs in the result, those that failed included.
        num_described: images that went through the backbone.
        num_reused: images whose features or maps were still there.
        num_bytes: encoded bytes of the images that were read.
        seconds: time that it took; None where another process counts it.
        errors: images, pairs and rows that were left out, by reason.
    """

    num_pairs: int = 0
    num_described: int = 0
    num_reused: int = 0
    num_bytes: int = 0
    seconds: float | None = None
    errors: Mapping[Reason, int] = field(default_factory=dict)


def count_work(stage: StageName, work: Work) -> None:
    """Adds a block's or a step's work to the metrics."""
    if not _runs_in_ray():
        return
    amounts = {
        "dhpf_pairs_total": work.num_pairs,
        "dhpf_images_described_total": work.num_described,
        "dhpf_images_reused_total": work.num_reused,
        "dhpf_bytes_read_total": work.num_bytes,
    }
    for name, amount in amounts.items():
        if amount:
            _recorder(name).inc(amount, {"stage": stage})
    for reason, number in work.errors.items():
        if number:
            _recorder("dhpf_errors_total").inc(number, {"stage": stage, "reason": reason})
    if work.seconds is not None:
        _recorder("dhpf_stage_seconds").observe(work.seconds, {"stage": stage})


def set_blocks_left(stage: StageName, number: int) -> None:
    """Says how many blocks of a stage, or steps of a training epoch, are not done yet."""
    if _runs_in_ray():
        _recorder("dhpf_blocks_left").set(number, {"stage": stage})


def set_gpu_memory(stage: StageName, device: Any) -> None:
    """Says how much memory this process's tensors took at most on a torch.device; nothing where it is no GPU."""
    if device.type == "cuda" and _runs_in_ray():
        import torch

        _recorder("dhpf_gpu_memory_bytes").set(torch.cuda.max_memory_allocated(device), {"stage": stage})


def reason_of(failure: str) -> Reason:
    """The reason behind the text that says why a pair was left out; only texts of this software are told apart."""
    if "ended its worker's process" in failure or "took longer than " in failure:
        return "crash"
    return "image" if failure.startswith("image ") else "points"


def reasons_of(failures: Iterable[str]) -> Mapping[Reason, int]:
    """How many of these failures each reason is behind."""
    return Counter(map(reason_of, failures))


class CountedReads:
    """Reads images by another function, and counts their bytes; several threads may read at once."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._sizes: list[int] = []

    def __call__(self, image_id: str) -> bytes:
        data = self._read(image_id)
        self._sizes.append(len(data))
        return data

    @property
    def num_bytes(self) -> int:
        """Bytes that were read so far."""
        return sum(self._sizes)


class BlocksLeft:
    """Keeps the number of blocks that are not done yet up to date, from the beginning to the end of a `with` block."""

    def __init__(self, stage: StageName, number: int) -> None:
        self._stage, self._number = stage, number

    def __enter__(self) -> BlocksLeft:
        set_blocks_left(self._stage, self._number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        set_blocks_left(self._stage, 0)

    def one_done(self) -> None:
        """Says that one more block is done."""
        self._number -= 1
        set_blocks_left(self._stage, self._number)


def _runs_in_ray() -> bool:
    """Whether this process belongs to a Ray cluster; without importing Ray, which takes half a second."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@functools.cache
def _recorder(name: str) -> Any:
    from ray.util import metrics

    metric = METRICS[name]
    if metric.type == "histogram":
        return metrics.Histogram(name, boundaries=list(BLOCK_SECONDS), tag_keys=metric.labels)
    return (metrics.Counter if metric.type == "counter" else metrics.Gauge)(name, tag_keys=metric.labels)
