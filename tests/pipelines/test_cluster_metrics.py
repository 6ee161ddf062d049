"""Metrics are those that metrics.yaml lists, reach Ray's agent with their values, and cost next to nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import pytest
import requests
import yaml

from dhpf.pipelines.cluster_metrics import (
    BLOCK_SECONDS,
    METRICS,
    CountedReads,
    Reason,
    reasons_of,
)
from infra.s3_server import free_ports

LISTED = Path(__file__).parents[2] / "infra" / "monitoring" / "metrics.yaml"


RECORDER = """
import json, sys, time
import ray, torch
from dhpf.pipelines.cluster_metrics import BlocksLeft, Work, count_work, set_blocks_left, set_gpu_memory

ray.init("local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1], _metrics_export_port=int(sys.argv[2]))
with BlocksLeft("evaluate", 2) as left:
    left.one_done()
for _ in range(2):
    count_work("match", Work(6, 4, 2, 1000, 7.0, {"image": 2, "points": 1}))
count_work("shard", Work())
set_blocks_left("match", 3)
set_gpu_memory("match", torch.device("cpu"))
print("recorded", ray.util.get_node_ip_address(), flush=True)
sys.stdin.readline()
started = time.perf_counter()
for number in range(1000):
    count_work("search", Work(6, 4, 2, 1000, 7.0, {"image": 2, "points": 1}))
    set_blocks_left("search", number)
print("seconds", (time.perf_counter() - started) / 1000, flush=True)
"""
"""Records in a cluster of its own, then says how many seconds the metrics of one block take."""


def test_the_list_for_alerts_and_dashboard_agrees_in_names_types_and_labels() -> None:
    listed = {
        name: (entry["type"], tuple(entry["labels"])) for name, entry in yaml.safe_load(LISTED.read_text()).items()
    }
    assert listed == {name: (metric.type, metric.labels) for name, metric in METRICS.items()}


def test_reasons_are_a_closed_list() -> None:
    failures = [
        "image a.png: no such file",
        "image b.png: ended its worker's process 2 times (SIGSEGV)",
        "not tried: block-1 ended its worker's process 4 times",
        "source_points: (1, 2) lies outside image a.png of 1 x 1 pixels",
        "target box: (1, 2) lies outside image a.png of 1 x 1 pixels",
    ]
    assert reasons_of(failures) == {"image": 1, "crash": 2, "points": 2}
    assert set(reasons_of(failures)) < set(get_args(Reason))


def test_bytes_of_reads_that_succeed_are_counted() -> None:
    files = {"a": b"123", "b": b"4567"}
    reads = CountedReads(files.__getitem__)
    assert reads("a") + reads("b") + reads("a") == b"1234567123" and reads.num_bytes == 10
    with pytest.raises(KeyError):
        reads("c")
    assert reads.num_bytes == 10


def test_outside_ray_nothing_is_recorded_and_ray_is_not_imported() -> None:
    code = (
        "import sys; from dhpf.pipelines.cluster_metrics import *\n"
        "count_work('match', Work(6, 4, 2, 1000, 7.0, {'image': 2})); set_blocks_left('match', 3)\n"
        "with BlocksLeft('match', 2) as left: left.one_done()\n"
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_was_recorded_is_exported_and_took_next_to_no_time() -> None:
    (port,) = free_ports(1)
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "1000"}
    with (
        tempfile.TemporaryDirectory(prefix="ray") as folder,
        subprocess.Popen(
            [sys.executable, "-c", RECORDER, folder, str(port)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as recorder,
    ):
        assert recorder.stdout is not None
        host = next(line.split()[1] for line in recorder.stdout if line.startswith("recorded "))
        _require_exported(f"http://{host}:{port}/metrics")
        printed, _ = recorder.communicate("\n", timeout=60)
    assert float(printed.split("seconds ")[1]) < BLOCK_SECONDS[0] / 1000


def _require_exported(url: str) -> None:
    expected = {
        ("dhpf_pairs_total", "match"): 12,
        ("dhpf_images_described_total", "match"): 8,
        ("dhpf_images_reused_total", "match"): 4,
        ("dhpf_bytes_read_total", "match"): 2000,
        ("dhpf_errors_total", "image"): 4,
        ("dhpf_errors_total", "points"): 2,
        ("dhpf_stage_seconds_count", "match"): 2,
        ("dhpf_blocks_left", "match"): 3,
        ("dhpf_blocks_left", "evaluate"): 0,
    }
    deadline = time.monotonic() + 60
    while (found := _samples(url)) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found == expected
    text = requests.get(url, timeout=10).text
    limits = re.findall(r'ray_dhpf_stage_seconds_bucket\{.*?le="([\d.]+)".*?\} ([\d.]+)', text)
    assert [float(limit) for limit, _ in limits] == list(BLOCK_SECONDS)
    assert [float(number) for _, number in limits] == [2.0 * (limit >= 10) for limit in BLOCK_SECONDS]  # 7 s each


def _samples(url: str) -> dict[tuple[str, str], float]:
    """Values of our metrics by name and by reason or, without one, stage; the sum and the parts of histograms aside."""
    lines = re.findall(r"^ray_(dhpf_\w+)\{(.*)\} (\S+)$", requests.get(url, timeout=10).text, re.M)
    found = {}
    for name, labels, value in lines:
        named = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if not name.endswith(("_bucket", "_sum", "_created")):
            found[name, named.get("reason", named["stage"])] = float(value)
    return found
