"""What happens to machines while a run goes on, tried on machines that share nothing."""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING

import mlflow
import pytest
import skimage.data
from PIL import Image
from pyarrow import fs

import dhpf.results
from tests.infra.cluster_client import command, ended, needs_root

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from mlflow.entities import Run

    from tests.infra.cluster_client import WheelClient

NUM_PHOTOS = 26
NUM_PAIRS = NUM_PHOTOS * (NUM_PHOTOS - 1) // 2
SETTINGS = ["match.collections={photos: {root: photos, select: within-folders, max_pairs: 5}}"]


@pytest.fixture(scope="module")
def photos(wheel_client: WheelClient) -> list[str]:
    """The words by which a run finds a folder of photos in the cluster's bucket."""
    keys = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
    bucket, _, query = wheel_client.environment["CLUSTER_DATA"].removeprefix("s3://").partition("?")
    options = dict(field.split("=") for field in query.split("&"))
    store = fs.S3FileSystem(**options, **{name: wheel_client.environment[key] for name, key in keys.items()})
    image = skimage.data.chelsea()
    for number in range(NUM_PHOTOS):
        encoded = io.BytesIO()
        Image.fromarray(image[number * 3 : number * 3 + 220, number * 5 : number * 5 + 300]).save(encoded, "JPEG")
        with store.open_output_stream(f"{bucket}/photos/cats/{number}.jpg") as stream:
            stream.write(encoded.getvalue())
    return ["--data", wheel_client.environment["CLUSTER_DATA"]]


def wait_for_pairs(client: WheelClient, name: str, num_pairs: int, submitted: subprocess.Popen[str]) -> str:
    """Waits until the latest job of a run has matched so many pairs; its id."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        job = next(reversed(client.jobs(name)), None)
        matched = re.findall(r"match photos: (\d+) of", client.log(job)) if job else []
        if job and matched and int(matched[-1]) >= num_pairs:
            return job
        assert submitted.poll() is None, ended(submitted).stderr
        time.sleep(0.3)
    raise AssertionError(f"{num_pairs} pairs were not matched in time")


def statuses(client: WheelClient, name: str, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """The status of every pair of a run that is complete."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, client.environment[variable])
    folder, _, query = client.work.partition("?")
    table = dhpf.results.open(f"{folder}/{name}/match/photos?{query}").table()
    assert len(set(table["pair_id"].to_pylist())) == table.num_rows
    found: list[str] = table["status"].to_pylist()
    return found


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_a_run_survives_a_lost_machine_a_store_that_is_away_and_a_lost_head(
    wheel_client: WheelClient, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = wheel_client.submit("match-folder", "faults", SETTINGS, *photos)
    wait_for_pairs(wheel_client, "faults", 10, first)
    assert command("kill-node", "worker2").returncode == 0
    assert command("cut", "storage").returncode == 0
    time.sleep(20)
    assert command("reconnect", "storage").returncode == 0
    job = wait_for_pairs(wheel_client, "faults", 60, first)
    driver = wheel_client.driver(job)
    assert command("start-node", "worker2").returncode == 0
    assert command("restart-head").returncode == 0
    assert not driver.is_running() and wheel_client.jobs("faults") == {}
    assert ended(first).returncode != 0

    second = ended(wheel_client.submit("match-folder", "faults", SETTINGS, *photos))
    assert second.returncode == 0, second.stderr
    assert list(statuses(wheel_client, "faults", monkeypatch)) == ["matched"] * NUM_PAIRS


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_a_machine_without_keys_is_named_before_anything_is_submitted(
    wheel_client: WheelClient, photos: list[str]
) -> None:
    assert command("kill-node", "worker2").returncode == 0
    assert command("start-node", "worker2", "--no-s3-keys").returncode == 0
    done = ended(wheel_client.submit("match-folder", "keys", SETTINGS, *photos))
    assert command("kill-node", "worker2").returncode == 0
    assert command("start-node", "worker2").returncode == 0
    assert done.returncode == 2
    assert "the cluster is not ready for this run, see above; nothing was submitted" in done.stderr
    assert re.search(r"^worker2 \(.*\), work: give the machine credentials", done.stdout, re.M), done.stdout
    assert not re.search(r"^(worker1|head) .*FAILED", done.stdout, re.M)
    assert wheel_client.jobs("keys") == {}


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_a_run_without_mlflow_is_filled_in_afterwards(
    wheel_client: WheelClient, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("cut", "tracking").returncode == 0
    done = ended(wheel_client.submit("match-folder", "unseen", SETTINGS, *photos))
    assert command("reconnect", "tracking").returncode == 0
    assert done.returncode == 0, done.stderr
    assert list(statuses(wheel_client, "unseen", monkeypatch)) == ["matched"] * NUM_PAIRS
    server = mlflow.MlflowClient(wheel_client.environment["MLFLOW_TRACKING_URI"])
    assert runs_of(server, "unseen") == {}

    sync = ["track", "sync", "--work", wheel_client.work]
    first = ended(wheel_client.begin(*sync))
    assert first.returncode == 0, first.stderr
    found = runs_of(server, "unseen")
    assert sorted(run.data.tags["dhpf.stage"] for run in found.values()) == ["match", "workflow"]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    [matching] = [run for run in found.values() if run.data.tags["dhpf.stage"] == "match"]
    assert server.list_artifacts(matching.info.run_id, "pictures")

    second = ended(wheel_client.begin(*sync))
    assert re.search(r"^unseen: 0 entries and 0 files were not", second.stdout, re.M), second.stdout
    assert runs_of(server, "unseen").keys() == found.keys()


def runs_of(server: mlflow.MlflowClient, name: str) -> dict[str, Run]:
    """The runs of a workflow's run, by their ids."""
    experiments = [experiment.experiment_id for experiment in server.search_experiments()]
    found = server.search_runs(experiments, f"attributes.run_name LIKE '{name}%'")
    return {run.info.run_id: run for run in found}
