"""The jobs API of a Ray cluster, over HTTP: the one way to a cluster from outside it.

A token and other secrets go with each request as Ray reads them from this machine's environment; they are never part
of a job, whose settings anyone with the token can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from dhpf.errors import InputError
from dhpf.storage import split_uri

DASHBOARD_PORT = 8265

ANSWER_SECONDS = 5.0
"""How long a cluster may take to say that it is there."""

REQUEST_SECONDS = 60.0
"""How long it may take for anything else."""

PATIENCE_SECONDS = 120.0
"""For so long a job is still waited for where its cluster does not answer any more, such as a head that restarts."""

POLL_SECONDS = 1.0

ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)

OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Environment variables that Ray prefers to the address that it is given."""

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that tell of each upload what `dhpf submit` says itself."""


class JobTaken(InputError):
    """There is a job of this id."""


class JobServer:
    """A cluster's jobs.

    Args:
        address: http://HEAD:8265, the cluster's dashboard.

    Raises:
        InputError: an address of another form, nothing answers there, or the token is missing or wrong.
    """

    def __init__(self, address: str | None) -> None:
        self.address = require_dashboard(address)
        with self._said():
            requests.get(f"{self.address}/api/version", timeout=ANSWER_SECONDS, allow_redirects=False)
            with _without(OVERRIDES):
                self._client = self._connected()

    def _connected(self) -> _Client:
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            return _Client(self.address)
        except (RuntimeError, requests.HTTPError, requests.JSONDecodeError, KeyError) as error:  # not an answer of Ray
            raise InputError(
                f"--address {self.address}: what answers there is no Ray dashboard ({_reason(error)}); give "
                f"http://HEAD:{DASHBOARD_PORT}"
            ) from error

    def submit(
        self,
        job: str,
        command: str,
        folder: Path,
        *,
        variables: Mapping[str, str],
        facts: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Sends a folder and starts a command in it.

        Args:
            job: id that the job gets.
            variables: of its environment; everybody with the token can read them.
            facts: that lists of jobs show.

        Raises:
            JobTaken: another job has this id, also one that has ended.
        """
        runtime_env = {"working_dir": str(folder), "env_vars": dict(variables)}
        with self._said():
            try:
                self._client.submit_job(
                    entrypoint=command, submission_id=job, runtime_env=runtime_env, metadata=dict(facts)
                )
            except RuntimeError as error:
                if self.find(job) is None:
                    raise
                raise JobTaken(f"job {job}: there is one of this id") from error

    def find(self, job: str) -> JobDetails | None:
        """A job, or None if the cluster knows none of this id."""
        return next((found for found in self.jobs() if found.submission_id == job), None)

    def require(self, job: str) -> JobDetails:
        """A job; an InputError that names the latest ones if there is none of this id."""
        jobs = self.jobs()
        found = next((one for one in jobs if one.submission_id == job), None)
        if found is None:
            latest = ", ".join(str(one.submission_id) for one in jobs[-3:])
            raise InputError(f"job {job!r}: {self.address} has none of this id; its latest: {latest or 'none at all'}")
        return found

    def jobs(self) -> list[JobDetails]:
        """All submitted jobs that the cluster still knows, the earliest first."""
        with self._said():
            known = [job for job in self._client.list_jobs() if job.submission_id is not None]
        return sorted(known, key=lambda job: job.start_time or 0)

    def stop(self, job: str) -> bool:
        """Asks a job to stop; False if it has ended already."""
        self.require(job)
        with self._said():
            return bool(self._client.stop_job(job))

    def forget(self, job: str) -> None:
        """Removes a job that has ended, so that no list shows it."""
        with self._said():
            self._client.delete_job(job)

    def log(self, job: str) -> str:
        """What a job's driver has printed."""
        with self._said():
            return str(self._client.get_job_logs(job))

    def follow(self, job: str, show: Callable[[str], None]) -> None:
        """Shows what a job's driver prints until the job ends, also where the connection is lost and found again."""
        shown = 0

        async def follow_once() -> None:
            nonlocal shown
            seen = 0
            async for text in self._client.tail_job_logs(job):
                new = text[max(0, shown - seen) :]
                seen += len(text)
                if new:
                    show(new)
                    shown += len(new)

        while True:
            with contextlib.suppress(RuntimeError, OSError):  # the connection broke; whether the job has ended is asked
                asyncio.run(follow_once())
            if self._patiently(job).status in ENDED:
                break
            time.sleep(POLL_SECONDS)
        rest = self.log(job)[shown:]
        if rest:
            show(rest)

    def wait(self, job: str, seconds: float | None = None) -> JobDetails:
        """Waits until a job has ended, or until some seconds have passed; what it is then."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            found = self._patiently(job)
            if found.status in ENDED or (deadline is not None and time.monotonic() > deadline):
                return found
            time.sleep(POLL_SECONDS)

    def _patiently(self, job: str) -> JobDetails:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.require(job)
            except NoAnswer as error:
                if time.monotonic() > deadline:
                    raise InputError(f"{error}; job {job} goes on there, if its cluster does") from error
                time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Turns what Ray raises into a sentence with a remedy."""
        try:
            yield
        except AuthenticationError as error:
            has_token = "failed" in str(error)
            reason = "the token is not this cluster's" if has_token else "this cluster asks for a token"
            raise InputError(
                f"--address {self.address}: {reason}; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file that "
                "holds it, or RAY_AUTH_TOKEN to the token itself"
            ) from error
        except (ConnectionError, requests.RequestException) as error:
            raise NoAnswer(
                f"--address {self.address}: no Ray dashboard answers there ({_reason(error)}); check host and port, "
                "whether the head runs, and whether a firewall lets this machine through"
            ) from error
        except RuntimeError as error:
            raise InputError(f"--address {self.address}: the cluster refuses ({_reason(error)})") from error


class NoAnswer(InputError):
    """The cluster's dashboard does not answer."""


class _Client(JobSubmissionClient):
    """Ray's client, which by itself would wait without limit for a server that accepts and does not answer."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        answer: requests.Response = super()._do_request(method, endpoint, **{"timeout": REQUEST_SECONDS} | options)
        return answer


def require_dashboard(address: str | None) -> str:
    """The address of a cluster's dashboard without a slash at its end.

    Raises:
        InputError: an address of another form.
    """
    if address is None:
        raise InputError(f"--address: name the cluster by its dashboard, http://HEAD:{DASHBOARD_PORT}")
    scheme, host = split_uri(address if "://" in address else f"//{address}")[:2]
    if scheme not in ("http", "https") or not host:
        head = host.rpartition(":")[0] or (host if "." in host else "HEAD")
        raise InputError(
            f"--address {address}: from outside a cluster jobs go through its dashboard; give "
            f"--address http://{head}:{DASHBOARD_PORT}"
        )
    return address.rstrip("/")


@contextlib.contextmanager
def _without(variables: tuple[str, ...]) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return f"not within {ANSWER_SECONDS:.0f} s"
    of_system = re.search(r"\[Errno -?[0-9]+\] ([\w ]+)", str(error))
    if of_system:
        return of_system[1]
    line = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else f"{line[:197]}..."
