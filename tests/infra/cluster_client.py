"""A user's machine beside the local cluster, and what the cluster's own records say of its jobs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from infra.local_cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
NAME = "test"

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the local cluster on the one that tests have."""
    cluster = [sys.executable, "-m", "infra.local_cluster", *arguments, "--name", NAME]
    return subprocess.run(cluster, cwd=ROOT, capture_output=True, text=True, check=False, timeout=420)


def client(cluster: Cluster) -> dict[str, str]:
    """The environment of a client that has read the cluster's env file, and nothing else of Ray's."""
    sourced = ["bash", "-c", f". {cluster.env_file} && env -0"]
    bare = {"PATH": os.environ["PATH"], "HOME": str(cluster.folder)}
    printed = subprocess.run(sourced, env=bare, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in printed.split("\0") if line)


@dataclass(frozen=True)
class WheelClient:
    """A machine with an environment that holds the wheel alone; all other packages are borrowed.

    Attributes:
        dhpf: its command.
        home: the current folder of its commands.
    """

    cluster: Cluster
    dhpf: Path
    home: Path

    @cached_property
    def environment(self) -> dict[str, str]:
        """What it has read from the cluster's env file."""
        return client(self.cluster)

    @property
    def work(self) -> str:
        """The work folder, in the cluster's bucket."""
        return self.environment["CLUSTER_WORK"]

    def changed(self, folder: Path, module: str, old: str, new: str) -> WheelClient:
        """The same machine with other code in one module of the pipelines, in a new environment in `folder`."""
        shutil.copytree(self.dhpf.parents[1], folder / "changed", symlinks=True)
        file = next((folder / "changed" / "lib").glob(f"python*/site-packages/dhpf/pipelines/{module}"))
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))
        return replace(self, dhpf=folder / "changed" / "bin" / "dhpf")

    def begin(self, *words: str, **changed: str) -> subprocess.Popen[str]:
        """Begins a `dhpf` command; `changed` are environment variables."""
        return subprocess.Popen(
            [self.dhpf.with_name("python"), self.dhpf, *words],
            cwd=self.home,
            env=self.environment | changed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def submit(self, workflow: str, name: str, settings: list[str], *words: str) -> subprocess.Popen[str]:
        """Begins to submit a workflow, and to wait for the job's end."""
        set_ = [word for setting in settings for word in ("--set", setting)]
        return self.begin("submit", workflow, "--name", name, "--work", self.work, *set_, "--wait", *words)

    def asked(self, path: str, **wanted: str) -> Any:
        """What the cluster's dashboard answers."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        answer = requests.get(
            f"{self.environment['RAY_API_SERVER_ADDRESS']}{path}",
            headers={"Authorization": f"Bearer {token}"},
            params=wanted,
            timeout=60,
        )
        answer.raise_for_status()
        return answer.json()

    def jobs(self, name: str) -> dict[str, str]:
        """The status of each job of a run, by its id, the first job first."""
        listed = [job for job in self.asked("/api/jobs/") if (job["submission_id"] or "").startswith(f"{name}-")]
        return {job["submission_id"]: job["status"] for job in sorted(listed, key=lambda job: job["start_time"])}

    def log(self, job: str) -> str:
        """What a job's driver has said."""
        return str(self.asked(f"/api/jobs/{job}/logs")["logs"])

    def machines_of(self, task: str, job: str) -> list[str]:
        """The machine of each finished task of a job whose name has these words in it, by Ray's own records."""
        addresses = {machine.address: machine.name for machine in self.cluster.machines.values()}
        nodes = {node["node_id"]: addresses[node["node_ip"]] for node in self._records("nodes")}
        driver = next(each["job_id"] for each in self._records("jobs") if each["submission_id"] == job)
        return [
            nodes[record["node_id"]]
            for record in self._records("tasks")
            if task in record["name"]
            and record["job_id"] == driver
            and record["state"] == "FINISHED"
            and record["type"] != "ACTOR_CREATION_TASK"
        ]

    def _records(self, what: str) -> list[dict[str, Any]]:
        answer = self.asked(f"/api/v0/{what}", limit="10000", detail="true")
        found: list[dict[str, Any]] = answer["data"]["result"]["result"]
        return found

    def driver(self, job: str) -> psutil.Process:
        """The process that drives a job, once it is there."""
        return self.process(
            "head",
            lambda process: "dhpf.pipelines" in process.cmdline() and process.environ().get("DHPF_JOB") == job,
        )

    def process(self, machine: str, is_meant: Callable[[psutil.Process], bool]) -> psutil.Process:
        """A process of a machine, once it is there."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            for pid in self.cluster.machines[machine].pids():
                try:
                    if is_meant(psutil.Process(pid)):
                        return psutil.Process(pid)
                except psutil.Error:  # ended meanwhile
                    continue
            time.sleep(0.2)
        raise AssertionError(f"no such process on {machine}")

    def wait_for_line(self, name: str, text: str, seconds: float = 240) -> str:
        """Waits until the latest job of a run has said something; the job's id."""
        deadline = time.monotonic() + seconds
        said = "there is no job"
        while time.monotonic() < deadline:
            jobs = list(self.jobs(name))
            said = self.log(jobs[-1]) if jobs else said
            if text in said:
                return jobs[-1]
            time.sleep(0.3)
        raise AssertionError(f"{text!r} was not said: {said}")


def ended(process: subprocess.Popen[str], seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """Waits for a command's end."""
    out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
