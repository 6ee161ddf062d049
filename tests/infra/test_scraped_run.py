"""A real Prometheus scrapes a real Ray cluster while all stages run, and answers what the dashboard asks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import skimage.data
import yaml
from PIL import Image

from infra.s3_server import free_ports
from tests.infra.test_monitoring import MONITORING, dashboard_queries

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]

NEED_A_GPU = {'max by (stage) (ray_dhpf_gpu_memory_bytes{stage=~".*"})'}
"""Queries that have no answer where no worker has a GPU."""

SCRAPE_SECONDS = 2

WORKFLOW = """
seen:
  summary: All stages, each as small as it can be.
  model: {backbone: efficientnet_lite0, projection: none, exponent: 4}
  shard:
    sources: {photo-warps: {kind: photo_warps, splits: [train, val, test], options: {views: 2}}}
    max_pairs: 8
  search: {on: photo-warps/val, beam: 1, max_layers: 2, max_pairs: 4}
  train:
    on: photo-warps
    supervision: {kind: strong, selection_weight: 0.1}
    gates_start: searched
    epochs: 2
    batch_size: 4
    num_workers: 1
  evaluate:
    on: [photo-warps/test]
    methods: {dynamic: trained}
  match:
    collections: {broken: {root: broken, select: all}}
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ray") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def head(folder: Path) -> Iterator[str]:
    """HOST:PORT of a Ray head whose processes hand their numbers on every second."""
    gcs, dashboard, client, agent, metrics = free_ports(5)
    options = {
        "port": gcs,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "metrics-export-port": metrics,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "num-cpus": 4,
        "object-store-memory": 200_000_000,
        "temp-dir": folder,
    }
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "1000"}
    command = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--disable-usage-stats"]
    with _running(
        [*command, *(f"--{name}={value}" for name, value in options.items())], folder / "ray.log", environment
    ):
        yield f"{_host(folder / 'session_latest' / 'prom_metrics_service_discovery.json')}:{gcs}"


@pytest.fixture(scope="module")
def prometheus(head: str, folder: Path) -> Iterator[str]:
    """The address of a Prometheus with our settings, their paths and times aside."""
    settings = (MONITORING / "prometheus.yml").read_text()
    for written, here in {
        "/tmp/ray/": f"{folder}/",
        "[alerts.yml]": f"[{MONITORING / 'alerts.yml'}]",
        "15s": f"{SCRAPE_SECONDS}s",
        "30s": f"{SCRAPE_SECONDS}s",
    }.items():
        assert written in settings
        settings = settings.replace(written, here)
    (folder / "prometheus.yml").write_text(settings)
    (port,) = free_ports(1)
    flags = {"config.file": folder / "prometheus.yml", "storage.tsdb.path": folder / "tsdb"}
    flags["web.listen-address"] = f"127.0.0.1:{port}"
    command = ["prometheus", *(f"--{name}={value}" for name, value in flags.items())]
    with _running(command, folder / "prometheus.log", dict(os.environ)):
        yield f"http://127.0.0.1:{port}/api/v1"


@pytest.fixture(scope="module")
def ended(prometheus: str, head: str, folder: Path) -> dict[str, float]:
    """When a run of all stages began and ended, that Prometheus saw from its beginning, and was asked after its end."""
    _asked(prometheus, "query", query="count(ray_node_mem_total)", until_answered=True)
    (folder / "workflows.yaml").write_text(WORKFLOW)
    photos = folder / "datasets" / "broken" / "cups"
    photos.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(skimage.data.coffee()[:200, 20 * number : 20 * number + 200]).save(photos / f"{number}.png")
    (photos / "broken.png").write_bytes(b"no image")
    places = ["--file", "workflows.yaml", "--data", "datasets", "--work", "work"]
    command = [sys.executable, "-m", "dhpf.pipelines", "run", "seen", *places, "--address", head, "--quiet", "--json"]
    started = time.time()
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stdout + done.stderr  # an image is broken
    finished = time.time()
    time.sleep(3 * SCRAPE_SECONDS)
    return {"start": started, "end": finished}


def test_every_query_of_the_dashboard_is_answered(prometheus: str, ended: dict[str, float]) -> None:
    answers = {query: _over_the_run(prometheus, query, ended) for query in map(_filled, dashboard_queries())}
    assert {query for query, answer in answers.items() if not answer} == NEED_A_GPU


def test_all_stages_counted_what_they_did(prometheus: str, ended: dict[str, float]) -> None:
    def of_stages(metric: str) -> dict[str, float]:
        return _by_stage(_asked(prometheus, "query", query=f"sum by (stage) (ray_dhpf_{metric})"))

    pairs = {"shard": 30, "search": 4 * (17 + 16), "train": 2 * 16, "evaluate": 10, "match": 6}
    assert of_stages("pairs_total") == pairs  # a search scores 4 pairs with each layer, then the best with each other
    assert of_stages("errors_total") == {"match": 3}  # three images with the broken one
    assert of_stages("images_reused_total").keys() == {"search", "train"}
    assert of_stages("bytes_read_total").keys() == {"shard", "search", "train", "evaluate", "match"}


def test_all_alerts_are_looked_at_and_none_is_an_error(prometheus: str, ended: dict[str, float]) -> None:
    groups = _asked(prometheus, "rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    assert rules.keys() == {rule["alert"] for group in alerts for rule in group["rules"]}
    for name, rule in rules.items():
        assert rule["health"] == "ok" and not rule.get("lastError"), (name, rule)


def _filled(query: str) -> str:
    """A query with Grafana's variables filled in."""
    return query.replace("$__rate_interval", "1m").replace("$stage", ".*")


def _over_the_run(prometheus: str, query: str, ended: dict[str, float]) -> list[Any]:
    result = _asked(prometheus, "query_range", query=query, step=str(SCRAPE_SECONDS), **ended)["result"]
    return list(result)


def _by_stage(answer: dict[str, Any]) -> dict[str, float]:
    return {series["metric"]["stage"]: float(series["value"][1]) for series in answer["result"]}


def _asked(prometheus: str, what: str, *, until_answered: bool = False, **parameters: Any) -> dict[str, Any]:
    """What Prometheus' API answers.

    Args:
        until_answered: asks again until there is something in the answer.
    """
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(requests.ConnectionError):
            answer = requests.get(f"{prometheus}/{what}", params=parameters, timeout=30)
            if answer.status_code != 503:  # which it says while it starts
                assert answer.ok, answer.text
                data: dict[str, Any] = answer.json()["data"]
                if data.get("result") or not until_answered:
                    return data
        assert time.monotonic() < deadline, f"no answer to {parameters}"
        time.sleep(0.5)


def _host(discovery: Path) -> str:
    """The machine whose metrics Prometheus is told to scrape, once there is one."""
    deadline = time.monotonic() + 300
    while not (found := json.loads(discovery.read_text()) if discovery.exists() else []):
        assert time.monotonic() < deadline, f"{discovery} names no machine"
        time.sleep(0.5)
    host, _, _ = found[0]["targets"][0].partition(":")
    return str(host)


@contextlib.contextmanager
def _running(command: list[Any], log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A process and all that it starts, until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    try:
        yield
        assert process.poll() is None, log.read_text()[-2000:]
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        psutil.wait_procs([psutil.Process(process.pid)], timeout=20)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait(timeout=30)
