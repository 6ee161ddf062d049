"""The local cluster as a whole: which machines it has, and what is done with them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from secrets import token_hex

from infra.local_cluster import services
from infra.local_cluster.machine import Machine, MachineError, ip
from infra.local_cluster.services import BUCKET, DASHBOARD_PORT, REGION, S3_PORT, TRACKING_PORT, Secrets

CLUSTERS = Path("/tmp/dhpf-clusters")
LONGEST_NAME = 6
"""Of a cluster; network cards have names of at most 15 characters, and machines of at most 8."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up, or was.

    Attributes:
        name: begins the names of its namespaces and network cards.
        network: the first three numbers of all addresses.
        num_workers: how many machines run Ray's workers; the head runs none.
        num_cpus: logical CPUs of each worker.
        secrets: its keys.
    """

    name: str
    network: str
    num_workers: int
    num_cpus: int
    secrets: Secrets

    @cached_property
    def folder(self) -> Path:
        return CLUSTERS / self.name

    @property
    def bridge(self) -> str:
        return f"{self.name}-bridge"

    @property
    def env_file(self) -> Path:
        """What clients read: addresses, token and keys."""
        return self.folder / "env"

    @cached_property
    def machines(self) -> dict[str, Machine]:
        """All machines by name."""
        hosts = {"head": 2, "storage": 3, "tracking": 4}
        hosts |= {f"worker{number}": 10 + number for number in range(1, self.num_workers + 1)}
        return {name: self._machine(name, f"{self.network}.{host}") for name, host in hosts.items()}

    def _machine(self, name: str, address: str) -> Machine:
        return Machine(self.name, name, address, self.folder / "disks" / name, self.folder / "logs" / f"{name}.log")

    def machine(self, name: str) -> Machine:
        """The machine of this name."""
        if name not in self.machines:
            raise MachineError(f"there is no machine {name!r}; there are: {', '.join(self.machines)}")
        return self.machines[name]

    @property
    def head(self) -> Machine:
        return self.machines["head"]

    @property
    def workers(self) -> list[Machine]:
        return [machine for name, machine in self.machines.items() if name.startswith("worker")]

    def up(self) -> None:
        """Makes all machines and starts what runs on them; returns when everything answers."""
        self._write_files()
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.network}.1/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        addresses = {name: machine.address for name, machine in self.machines.items()}
        for machine in self.machines.values():
            machine.create(self.bridge, addresses)
        services.start_storage(self.machines["storage"], self.secrets)
        self.start("head")
        services.wait_for_bucket(self.machines["storage"], self.secrets)
        self.start("tracking")
        services.wait_for_nodes(self.head, self.secrets, {self.head.address})
        for worker in self.workers:
            self.start(worker.name)
        self.wait()

    def start(self, name: str, *, with_s3_keys: bool = True) -> None:
        """Starts a machine that is not running."""
        machine = self.machines[name]
        if name == "storage":
            services.start_storage(machine, self.secrets)
        elif name == "tracking":
            services.start_tracking(machine, self.machines["storage"], self.secrets)
        else:
            num_cpus = 0 if machine == self.head else self.num_cpus
            services.start_ray(machine, self.head, num_cpus, self.secrets, with_s3_keys=with_s3_keys)

    def start_again(self, name: str, *, with_s3_keys: bool = True) -> None:
        """Starts a machine that was killed, and waits until it answers."""
        machine = self.machines[name]
        machine.require_stopped()
        # Ray notices after some seconds that a node is lost; until then the lost one would be taken for the new one.
        services.wait_until(
            lambda: machine.address not in services.alive_nodes(self.head, self.secrets), name, machine.log, 180
        )
        self.start(name, with_s3_keys=with_s3_keys)
        services.wait_until(
            lambda: self._answers(machine, services.alive_nodes(self.head, self.secrets)), name, machine.log, 180
        )

    def wait(self) -> None:
        """Waits until everything that should run answers."""
        services.wait_for_bucket(self.machines["storage"], self.secrets)
        services.wait_for_nodes(self.head, self.secrets, {machine.address for machine in [self.head, *self.workers]})
        services.wait_for_tracking(self.machines["tracking"])

    def restart_head(self) -> None:
        """Kills Ray's head and starts it anew, without memory of its jobs; the workers come back by themselves."""
        self.head.kill()
        self.start("head")
        self.wait()

    def down(self) -> None:
        """Removes all machines, the bridge and every file."""
        for machine in self.machines.values():
            machine.remove()
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def status(self) -> list[tuple[str, str, str]]:
        """Name, address and state of each machine."""
        alive = services.alive_nodes(self.head, self.secrets)
        return [(m.name, m.address, self._state(m, alive)) for m in self.machines.values()]

    def _state(self, machine: Machine, alive: set[str]) -> str:
        processes = len(machine.pids())
        if not processes:
            return "stopped"
        return f"{processes} processes, {'answers' if self._answers(machine, alive) else 'does not answer'}"

    def _answers(self, machine: Machine, alive: set[str]) -> bool:
        if machine.name == "storage":
            return services.storage_answers(machine)
        if machine.name == "tracking":
            return services.tracking_answers(machine)
        return machine.address in alive

    def _write_files(self) -> None:
        for folder in (self.folder, self.folder / "disks", self.folder / "logs"):
            folder.mkdir(mode=0o700, parents=True)
        _write_secret(self.folder / "cluster.json", json.dumps(asdict(self), indent=2))
        self.secrets.write_token(self.folder)
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.environment().items()]
        _write_secret(self.env_file, "\n".join(lines) + "\n")

    def environment(self) -> dict[str, str]:
        """What a client needs in its environment; all but CLUSTER_* is read by Ray, MLflow, S3 clients and us."""
        storage, tracking = self.machines["storage"], self.machines["tracking"]
        endpoint = f"endpoint_override={storage.address}:{S3_PORT}&scheme=http&region={REGION}"
        return {
            "CLUSTER_WORK": f"s3://{BUCKET}/work?{endpoint}",
            "CLUSTER_DATA": f"s3://{BUCKET}/data?{endpoint}",
            "MLFLOW_TRACKING_URI": f"http://{tracking.address}:{TRACKING_PORT}",
            "RAY_API_SERVER_ADDRESS": f"http://{self.head.address}:{DASHBOARD_PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "ray-token"),
            **self.secrets.s3,
        }


def new_cluster(name: str, num_workers: int, num_cpus: int) -> Cluster:
    """A cluster that is still to be brought up; its keys are made here."""
    if os.geteuid() != 0:
        raise MachineError("only root may make network namespaces: run this as root")
    if not name.isalnum() or len(name) > LONGEST_NAME:
        raise MachineError(f"{name!r} is no name for a cluster: letters and digits, at most {LONGEST_NAME}")
    if (CLUSTERS / name).exists():
        raise MachineError(f"a cluster {name!r} is there already: take it down, or choose another --name")
    secrets = Secrets(token_hex(32), token_hex(10), token_hex(20))
    return Cluster(name, _free_network(), num_workers, num_cpus, secrets)


def read_cluster(name: str) -> Cluster:
    """The cluster of this name."""
    file = CLUSTERS / name / "cluster.json"
    if not file.exists():
        there = ", ".join(sorted(path.name for path in CLUSTERS.glob("*"))) or "none"
        raise MachineError(f"there is no cluster {name!r}; there are: {there}")
    described = json.loads(file.read_text())
    return Cluster(**described | {"secrets": Secrets(**described["secrets"])})


def _free_network() -> str:
    taken = subprocess.run(["ip", "-brief", "addr"], capture_output=True, text=True, check=True).stdout
    return next(network for number in range(256) if f"{(network := f'10.213.{number}')}." not in taken)


def _write_secret(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)
