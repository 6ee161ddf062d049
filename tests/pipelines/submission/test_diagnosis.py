from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dhpf.pipelines.outputs.code_version import code_version
from tests.pipelines.submission.client import Client, Head

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_is_looked_at_from_outside(client: Client, head: Head, bucket: Bucket) -> None:
    before = head.all_jobs()
    done = client.run("doctor", "--work", bucket.uri("work"), "--workflow", "quickstart", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    of_node = {check["what"]: check for check in seen["nodes"][0]["checks"]}
    assert of_node["code"]["found"] == code_version() and of_node["weights"]["ok"]
    assert of_node["work"]["found"].startswith(bucket.uri("work"))
    assert {check["what"] for check in seen["cluster"]} >= {"address", "upload", "Ray", "shared work", "CPUs", "GPUs"}
    assert head.all_jobs() <= before, "the doctor's own is gone"


@pytest.mark.cluster
@pytest.mark.slow
def test_what_a_cluster_lacks_is_said_with_its_remedy(client: Client) -> None:
    done = client.run("doctor", "--work", "/proc/no-folder")
    assert done.returncode == 2
    assert "FAILED" in done.stdout and "give the machine credentials that may read and write there" in done.stdout


def test_this_machine_is_looked_at_without_a_cluster(tmp_path, monkeypatch, capsys) -> None:
    from dhpf.pipelines.__main__ import main

    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor", "--json"]) == 0
    assert {check["what"] for check in json.loads(capsys.readouterr().out)["nodes"][0]["checks"]} >= {"work", "disk"}
    assert main(["doctor", "--data", "none"]) == 2
    assert "mount the data folder" in capsys.readouterr().out
