"""A user's machine beside a Ray head that runs as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests


@dataclass(frozen=True)
class Head:
    """A Ray head with token authentication.

    Attributes:
        address: of its dashboard.
        gcs: HOST:PORT by which machines join it.
        token: file that holds its token.
        process: of `ray start`.
    """

    address: str
    gcs: str
    token: Path
    process: subprocess.Popen[bytes]

    def jobs(self) -> set[str]:
        """The ids of the runs that it knows."""
        return {job for job in self.all_jobs() if not job.startswith("doctor-")}

    def all_jobs(self) -> set[str]:
        """The ids of all submitted jobs that it knows, those that look at it included."""
        return {job["submission_id"] for job in self._asked("/api/jobs/").json()}

    def log(self, job: str) -> str:
        """What a job's driver has said."""
        return str(self._asked(f"/api/jobs/{job}/logs").json()["logs"])

    def _asked(self, path: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token.read_text()}"}
        answer = requests.get(f"{self.address}{path}", headers=headers, timeout=30)
        answer.raise_for_status()
        return answer

    def driver(self, job: str) -> psutil.Process:
        """The process that drives a job, once it is there."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                try:
                    if "dhpf.pipelines" in process.cmdline() and process.environ().get("DHPF_JOB") == job:
                        return process
                except psutil.Error:  # ended meanwhile
                    continue
            time.sleep(0.2)
        raise AssertionError(f"no driver of {job}")


@dataclass(frozen=True)
class Ended:
    """What a command left: exit status and what it said."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Client:
    """Runs `dhpf` commands, each as a process of its own, in a folder outside the checkout.

    Attributes:
        home: the current folder of the commands.
        environment: what they have of tokens and keys.
    """

    head: Head
    home: Path
    environment: Mapping[str, str]

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Begins a command, with the head's address."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": str(Path(__file__).parents[3])}
        return subprocess.Popen(
            [sys.executable, "-m", "dhpf.pipelines", *words, "--address", self.head.address],
            cwd=self.home,
            env=own | dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> Ended:
        """Runs a command to its end."""
        return ended(self.begin(*words))


def ended(process: subprocess.Popen[str]) -> Ended:
    """Waits for a command's end."""
    out, err = process.communicate(timeout=400)
    return Ended(process.returncode, out, err)
