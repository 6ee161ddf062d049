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


STILL, GROWING = "100x60", "0+100x60"
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "DhpfNoProgress": (
        {'ray_dhpf_blocks_left{stage="match"}': "5x60", 'ray_dhpf_pairs_total{stage="match"}': STILL},
        {'ray_dhpf_blocks_left{stage="match"}': "5x60", 'ray_dhpf_pairs_total{stage="match"}': GROWING},
    ),
    "DhpfManyErrors": (
        {'ray_dhpf_errors_total{stage="match"}': "0+2x60", 'ray_dhpf_pairs_total{stage="match"}': GROWING},
        {'ray_dhpf_errors_total{stage="match"}': "0+1x60", 'ray_dhpf_pairs_total{stage="match"}': GROWING},
    ),
    "DhpfLittleReuse": (
        {
            'ray_dhpf_images_described_total{stage="match"}': "0+101x65",
            'ray_dhpf_pairs_total{stage="match"}': "0+100x65",
        },
        {
            'ray_dhpf_images_described_total{stage="match"}': "0+99x65",
            'ray_dhpf_pairs_total{stage="match"}': "0+100x65",
        },
    ),
    "RayNodeGone": ({'up{job="ray",instance="a:8080"}': "0x60"}, {'up{job="ray",instance="a:8080"}': "1x60"}),
    "RayNodeDiskFull": (
        {'ray_node_disk_free{instance="a:8080"}': "4x60", 'ray_node_disk_usage{instance="a:8080"}': "96x60"},
        {'ray_node_disk_free{instance="a:8080"}': "6x60", 'ray_node_disk_usage{instance="a:8080"}': "94x60"},
    ),
    "RayNodeMemoryFull": (
        {'ray_node_mem_used{instance="a:8080"}': "93x60", 'ray_node_mem_total{instance="a:8080"}': "100x60"},
        {'ray_node_mem_used{instance="a:8080"}': "91x60", 'ray_node_mem_total{instance="a:8080"}': "100x60"},
    ),
}
"""What each alert is about, as it is given and as it is not, for an hour in minutes: Prometheus' notation."""


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == alerts().keys()


@needs_promtool
@pytest.mark.parametrize("name", CASES)
def test_an_alert_is_given_when_it_should_be_and_at_no_other_time(name: str, tmp_path: Path) -> None:
    rule = alerts()[name]
    labels = {"instance": "a:8080"} if "instance" in next(iter(CASES[name][0])) else {"stage": "match"}
    labels |= {"job": "ray"} if name == "RayNodeGone" else {}
    annotations = {
        key: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
        for key, text in rule["annotations"].items()
    }
    expected = {"exp_labels": labels | rule["labels"], "exp_annotations": annotations}
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in given.items()],
            "alert_rule_test": [{"eval_time": "61m", "alertname": name, "exp_alerts": [expected] * is_given}],
        }
        for given, is_given in zip(CASES[name], (1, 0), strict=True)
    ]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(MONITORING / "alerts.yml")], "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
