import dataclasses
import socket
import time

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.submission.job_server import JobServer, require_dashboard
from tests.pipelines.submission.client import Client, Head


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("10.0.0.1:6379", "give --address http://10.0.0.1:8265"),
        ("ray://head.example:10001", "give --address http://head.example:8265"),
        ("auto", "give --address http://HEAD:8265"),
        ("local", "give --address http://HEAD:8265"),
        ("http://", "give --address http://HEAD:8265"),
        (None, "name the cluster by its dashboard, http://HEAD:8265"),
    ],
)
def test_only_a_dashboard_is_an_address(address: str | None, remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        JobServer(address)


def test_a_dashboard_is_taken_as_it_is() -> None:
    assert require_dashboard("http://head:8265/") == "http://head:8265"
    assert require_dashboard("https://ray.example/path") == "https://ray.example/path"


def test_a_dead_address_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match=r"no Ray dashboard answers there \(Connection refused\); check host"):
            JobServer(f"http://127.0.0.1:{probe.getsockname()[1]}")
        probe.listen()
        with pytest.raises(InputError, match=r"no Ray dashboard answers there \(not within 5 s\)"):
            JobServer(f"http://127.0.0.1:{probe.getsockname()[1]}")
    assert time.monotonic() - began < 10


def test_what_is_no_dashboard_is_said(foreign_server: str) -> None:
    with pytest.raises(InputError, match="what answers there is no Ray dashboard"):
        JobServer(foreign_server)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "this cluster asks for a token"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}, "the token is not this cluster's"),
    ],
)
def test_no_token_and_a_wrong_one(client: Client, environment: dict[str, str], reason: str) -> None:
    done = dataclasses.replace(client, environment=environment).run("jobs")
    assert done.returncode == 2
    assert f"{reason}; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.cluster
@pytest.mark.slow
def test_the_address_that_was_given_wins_over_the_environment(client: Client, head: Head) -> None:
    elsewhere = {"RAY_ADDRESS": head.gcs, "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
    done = dataclasses.replace(client, environment=dict(client.environment) | elsewhere).run("jobs", "--json")
    assert done.returncode == 0 and done.stdout.startswith("["), done.stderr


@pytest.mark.cluster
@pytest.mark.slow
def test_an_unknown_job_is_said(client: Client) -> None:
    for command in ("logs", "stop"):
        done = client.run(command, "nobody")
        assert done.returncode == 2 and "has none of this id" in done.stderr
