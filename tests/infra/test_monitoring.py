"""Prometheus takes our files, and alerts and dashboard ask for metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "infra" / "monitoring"
OF_RAY = {
    "ray_node_cpu_utilization", "ray_node_disk_free", "ray_node_disk_usage", "ray_node_mem_total", "ray_node_mem_used",
}  # fmt: skip
PARTS = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def our_metrics() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load((MONITORING / "metrics.yaml").read_text())
    return loaded


def known_names() -> set[str]:
    return OF_RAY | {f"ray_{name}{part}" for name, metric in our_metrics().items() for part in PARTS[metric["type"]]}


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", query))


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return loaded


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def alert_queries() -> list[str]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_every_metric_is_described() -> None:
    for name, metric in our_metrics().items():
        assert metric.keys() == {"type", "labels", "help"} and metric["type"] in PARTS
        assert name.startswith("dhpf_") and name.endswith("_total") == (metric["type"] == "counter")
        assert metric["help"].endswith(".")


def test_queries_name_known_metrics_alone() -> None:
    asked = {name for query in dashboard_queries() + alert_queries() for name in names_in(query)}
    assert asked - known_names() == set()


def test_the_dashboard_shows_all_of_ours() -> None:
    shown = {name for query in dashboard_queries() for name in names_in(query)}
    missing = [name for name in our_metrics() if not any(found.startswith(f"ray_{name}") for found in shown)]
    assert missing == []


def test_labels_of_queries_are_those_of_the_metric() -> None:
    for query in dashboard_queries() + alert_queries():
        for name, selected in re.findall(r"ray_(dhpf_\w+?)(?:_bucket|_sum|_count)?\{(\w+)=", query):
            assert selected in our_metrics()[name]["labels"], query


def test_the_dashboard_has_the_shape_that_grafana_imports() -> None:
    loaded = dashboard()
    assert loaded.keys() >= {"uid", "title", "schemaVersion", "panels", "templating", "time"} and "id" not in loaded
    assert [panel["id"] for panel in loaded["panels"]] == list(range(1, len(loaded["panels"]) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in loaded["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["title"] and panel["datasource"]["uid"] == "${datasource}"
        assert all(target["refId"] and target["legendFormat"] for target in panel["targets"])


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"].keys() == {"summary", "remedy"} and rule["labels"]["severity"] in (
                "page",
                "ticket",
            )


@needs_promtool
def test_prometheus_takes_the_files() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", MONITORING / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alert_queries())} rules found" in done.stdout


@needs_promtool
def test_prometheus_refuses_a_wrong_query(tmp_path: Path) -> None:
    wrong = tmp_path / "alerts.yml"
    wrong.write_text((MONITORING / "alerts.yml").read_text().replace("sum by (stage)", "sum by stage", 1))
    done = subprocess.run(["promtool", "check", "rules", wrong], capture_output=True, text=True, check=False)
    assert done.returncode != 0


@needs_promtool
@pytest.mark.parametrize("query", dashboard_queries())
def test_prometheus_can_read_each_query_of_the_dashboard(query: str, tmp_path: Path) -> None:
    """As the expression of a rule, with Grafana's own variables filled in."""
    filled = query.replace("$__rate_interval", "1m").replace("$stage", ".*")
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [{"record": "r", "expr": filled}]}]}))
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
