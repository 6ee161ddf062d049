"""One machine of the local cluster: it is made, started, cut off from the network, killed and removed here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BOOT = Path(__file__).with_name("boot_machine.sh")
PROJECT = Path(__file__).parents[2]
HOSTS = Path("/etc/netns")


class MachineError(Exception):
    """What a machine was told to do did not work; the message says why."""


@dataclass(frozen=True)
class Machine:
    """One machine.

    Attributes:
        cluster: the cluster's name; it begins the names of the network namespace and of the network card.
        name: the machine's host name.
        address: its IPv4 address.
        folder: what lies in the machine's /mnt, its disk; kept when the machine is killed, gone when it is removed.
        log: where its processes write.
    """

    cluster: str
    name: str
    address: str
    folder: Path
    log: Path

    @property
    def namespace(self) -> str:
        return f"{self.cluster}-{self.name}"

    def create(self, bridge: str, neighbours: Mapping[str, str]) -> None:
        """Connects the machine to the bridge; `neighbours` are the addresses of all machines by name.

        Its own name leads to 127.0.1.1, as on an installed Debian: who announces what the host name resolves to is
        not found by others.
        """
        others = [f"{address} {name}" for name, address in neighbours.items() if name != self.name]
        hosts = HOSTS / self.namespace / "hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text("\n".join(["127.0.0.1 localhost", f"127.0.1.1 {self.name}", *others]) + "\n")
        self.folder.mkdir(parents=True, exist_ok=True)
        ip("netns", "add", self.namespace)
        ip("link", "add", self.namespace, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self.namespace, "master", bridge, "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        # Programs ask which card leads to the Internet to learn their own address. Nothing on this way answers.
        ip("-n", self.namespace, "route", "add", "default", "dev", "eth0")

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Runs a command as the machine's only service; the machine stops when the command ends."""
        self.require_stopped()
        namespaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        boot: list[str | Path] = ["ip", "netns", "exec", self.namespace, "unshare", *namespaces, BOOT]
        own = {"MACHINE": self.name, "DISK": str(self.folder), "PROJECT": str(PROJECT), "VENV": sys.prefix}
        path = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        basics = {"PATH": path, "HOME": "/mnt/home", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            subprocess.Popen(
                [*boot, *command],
                env={**basics, **own, **environment},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def require_stopped(self) -> None:
        """Refuses a machine that is running."""
        if self.pids():
            raise MachineError(f"{self.name} runs already")

    def pids(self) -> list[int]:
        """The machine's processes, by the numbers that the outside gives them."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def kill(self) -> None:
        """Ends all processes at once, as a power cut does; the disk stays."""
        deadline = time.monotonic() + 30
        while pids := self.pids():
            if time.monotonic() > deadline:
                raise MachineError(f"{self.name} could not be killed: processes {pids} remain")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def cut(self) -> None:
        """Pulls the network cable; what runs goes on."""
        ip("link", "set", self.namespace, "down")

    def reconnect(self) -> None:
        """Puts the network cable back."""
        ip("link", "set", self.namespace, "up")

    def remove(self) -> None:
        """Kills the machine and removes it with its disk; does nothing where it is gone already."""
        self.kill()
        subprocess.run(["ip", "link", "del", self.namespace], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)
        shutil.rmtree(HOSTS / self.namespace, ignore_errors=True)
        with contextlib.suppress(OSError):
            HOSTS.rmdir()  # only where nobody else has a namespace's files there
        shutil.rmtree(self.folder, ignore_errors=True)


def ip(*arguments: str) -> None:
    """Runs the command `ip`; its complaint becomes a `MachineError`."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
