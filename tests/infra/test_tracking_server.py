"""The tracking server's files: Compose and Kubernetes take them, nothing is open to the world, no secret is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER_COMPOSE = Path(sys.executable).with_name("docker-compose")
COMPOSE = ROOT / "infra" / "mlflow" / "compose.yaml"


def composed(file: Path) -> subprocess.CompletedProcess[str]:
    """What Compose makes of a file; it needs no engine for that."""
    environment = {"PATH": os.environ["PATH"], "ARTIFACTS": "s3://bucket/mlflow", "SECRETS": "/secrets"}
    return subprocess.run(
        [DOCKER_COMPOSE, "-f", file, "config"], env=environment, capture_output=True, text=True, check=False
    )


def test_compose_takes_the_file() -> None:
    done = composed(COMPOSE)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services.keys() == {"database", "mlflow"}
    assert [port["host_ip"] for service in services.values() for port in service.get("ports", [])] == ["127.0.0.1"]
    for service in services.values():
        assert service["healthcheck"]["test"] and service["read_only"] and service["cap_drop"] == ["ALL"]
        assert not [name for name in service["environment"] if name.endswith(("PASSWORD", "KEY", "TOKEN"))]
    assert services["mlflow"]["depends_on"]["database"]["condition"] == "service_healthy"


def test_compose_asks_for_the_bucket() -> None:
    bare = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [DOCKER_COMPOSE, "-f", COMPOSE, "config"], env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "the s3:// URI where artifacts go" in done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("depends_on:", "depnds_on:"),
        ("condition: service_healthy", "condition: healthy"),
        ("interval: 5s", "interval: x"),
    ],
)
def test_compose_refuses_a_wrong_file(right: str, wrong: str, tmp_path: Path) -> None:
    mutant = tmp_path / "compose.yaml"
    text = COMPOSE.read_text()
    assert right in text
    mutant.write_text(text.replace(right, wrong))
    assert composed(mutant).returncode != 0


def kubernetes_objects() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "infra" / "mlflow" / "kubernetes.yaml").read_text()))


def test_kubernetes_takes_the_manifests() -> None:
    for found in kubernetes_objects():
        kubernetes_validate.validate(found, "1.37", strict=True)


def test_kubernetes_refuses_a_misspelt_field() -> None:
    server = next(found for found in kubernetes_objects() if found["kind"] == "Deployment")
    server["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(server, "1.37", strict=True)


def test_the_database_is_reached_by_the_server_alone() -> None:
    policies = {found["metadata"]["name"]: found for found in kubernetes_objects() if found["kind"] == "NetworkPolicy"}
    assert policies["dhpf-mlflow-database"]["spec"]["egress"] == []
    allowed = policies["dhpf-mlflow-database"]["spec"]["ingress"]
    assert allowed[0]["from"] == [{"podSelector": {"matchLabels": {"app": "dhpf-mlflow"}}}]


def test_images_are_those_of_the_lock() -> None:
    text = COMPOSE.read_text() + (ROOT / "infra" / "mlflow" / "kubernetes.yaml").read_text()
    locked = next(
        line.split()[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith("mlflow==")
    )
    assert text.count(f"image: {locked.replace('mlflow==', 'dhpf-mlflow:')}") == 2
