"""`dhpf submit`, as a user meets it: from a folder outside the checkout, to a head in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from PIL import Image

import dhpf.results
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.submission.submission import Submission, refers_to
from dhpf.pipelines.workflow_file import PACKAGED_FILE, load_workflow
from dhpf.storage import location_of
from tests.pipelines.submission.client import Client, Head, ended

if TYPE_CHECKING:
    from infra.s3_server import Bucket

ADDRESS = ["--address", "http://127.0.0.1:9"]


@pytest.fixture
def words(tmp_path: Path, bucket: Bucket) -> list[str]:
    """`submit` of a collection of three photos and a broken one, with outputs in a bucket."""
    import skimage.data

    folder = tmp_path / "data" / "photos" / "cats"
    folder.mkdir(parents=True)
    image = skimage.data.chelsea()
    for number in range(3):
        Image.fromarray(image[number * 8 : number * 8 + 200, number * 12 : number * 12 + 280]).save(
            folder / f"{number}.jpg"
        )
    whole = (folder / "0.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    places = ["--data", str(tmp_path / "data"), "--work", bucket.uri("work")]
    return ["submit", "match-folder", *places, "--tracking", f"sqlite:///{tmp_path / 'mlflow.db'}", "--json"]


def wait_for_job(head: Head, before: set[str]) -> str:
    """The id of a job that was not there before."""
    deadline = time.monotonic() + 200
    while not head.jobs() - before:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return (head.jobs() - before).pop()


def wait_for_line(head: Head, job: str, text: str) -> None:
    deadline = time.monotonic() + 120
    while text not in head.log(job):
        assert time.monotonic() < deadline, head.log(job)
        time.sleep(0.5)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_of_four_submits_at_once_one_begins_and_goes_on_without_its_client(
    client: Client, head: Head, words: list[str], bucket: Bucket
) -> None:
    before = head.jobs()
    clients = [client.begin(*words, "--wait") for _ in range(4)]
    job = wait_for_job(head, before)
    clients[0].send_signal(signal.SIGKILL)
    left = [ended(process) for process in clients]
    assert {one.returncode for one in left[1:]} == {3}, "pairs with the broken photo have no result"
    assert all("3 pairs failed to match; the first: image cats/broken.jpg" in one.stderr for one in left[1:])
    facts = [json.loads(one.stdout) for one in left[1:]]
    assert {fact["job"] for fact in facts} == {job} == head.jobs() - before
    assert sum(not fact["joined"] for fact in facts) <= 1
    outputs = facts[0]["outputs"]
    assert outputs == bucket.uri("work/match-folder")
    table = dhpf.results.open(f"{outputs.partition('?')[0]}/match/photos?{bucket.query}").to_pandas()
    assert list(table["status"]).count("matched") == 3
    log = client.run("logs", job)
    assert log.returncode == 0 and "match photos" in log.stdout and "\r" not in log.stdout
    [listed] = [run for run in json.loads(client.run("jobs", "--json").stdout) if run["job"] == job]
    assert (listed["status"], listed["exit_status"], listed["outputs"]) == ("failed", 3, outputs)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in log.stdout


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.chaos
def test_a_job_that_was_killed_or_stopped_goes_on_when_it_is_submitted_again(
    client: Client, head: Head, words: list[str], tmp_path: Path
) -> None:
    words = [*words, "--name", "again"]
    before = head.jobs()
    first = client.begin(*words, "--follow")
    job = wait_for_job(head, before)
    wait_for_line(head, job, "joining Ray")
    head.driver(job).send_signal(signal.SIGKILL)
    killed = ended(first)
    assert killed.returncode == 137 and "joining Ray" in killed.stderr, killed.stderr
    assert "failed, exit status 137; submit it again and it goes on from here" in killed.stderr

    second = client.begin(*words, "--wait")
    stopped = wait_for_job(head, before | {job})
    assert stopped == re.sub("-0$", "-1", job)
    wait_for_line(head, stopped, "joining Ray")
    assert client.run("stop", stopped).stdout == f"{stopped}: stopped\n"
    assert ended(second).returncode == 130

    third = client.run(*words, "--wait")
    assert third.returncode == 3, third.stderr
    assert json.loads(third.stdout)["job"] == re.sub("-0$", "-2", job)
    assert "had ended already" in client.run("stop", stopped).stdout
    runs = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = runs.get_experiment_by_name("match-folder").experiment_id
    assert {run.info.status for run in runs.search_runs([experiment])} == {"FINISHED"}


def test_trying_failed_pairs_again_is_another_job_with_the_same_outputs() -> None:
    workflow = load_workflow(PACKAGED_FILE, "match-folder", [], location_of("/data"))
    places = {"folder": location_of("/w/mine"), "work": "/w", "data": "/data", "settings": [], "tracking": None}
    first, again = (
        Submission(workflow, "mine", **places, only=None, restart=None, retry_errors=retry)  # type: ignore[arg-type]
        for retry in (False, True)
    )
    assert first.work_id != again.work_id and "--retry-errors" not in first.command()
    assert again.command() == f"{first.command()} --retry-errors"


@pytest.mark.parametrize("data", ["/data", "/größe/daten", "s3://b/data?endpoint_override=h:8333&scheme=http"])
def test_a_data_folder_is_named_to_the_job_where_the_workflow_reads_it(data: str) -> None:
    folder = location_of(data)
    for workflow, reads in (("match-folder", True), ("pf-pascal-strong", True), ("quickstart", False)):
        assert refers_to(load_workflow(PACKAGED_FILE, workflow, [], folder), folder) == reads, workflow


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--work", "here"], "--work here: a relative path means another folder on every machine; give s3://"),
        (["--work", "s3://b/w"], "not in a bucket; give its server by --tracking"),
        (["--work", "/w", "--tracking", "http://me:secret@host:5000"], "set MLFLOW_TRACKING_USERNAME and"),
        (["--work", "/w", "--only", "mtch"], "--only mtch: no such stage; did you mean 'match'"),
        (["--work", "/w", "--set", "match.colour=3"], "unknown key 'colour'"),
        (["--work", "/w"], "--data datasets: a relative path"),
        (["--work", "/w", "--data", "/d"], "no Ray dashboard answers there"),
    ],
)
def test_what_cannot_be_submitted_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["submit", "match-folder", *ADDRESS, *arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dhpf: ")]
    assert len(said) == 1 and sentence in said[0] and "secret" not in said[0]
    assert list(tmp_path.iterdir()) == []
