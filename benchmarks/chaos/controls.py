"""Two writers that must lose or double rows under the storm: a harness that sees nothing in them would see nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.accounts import Account, Row, account
from infra.local_cluster.machine import PROJECT

JOB = PROJECT / "benchmarks" / "chaos" / "control" / "control_job.py"
SKIP, GLOB = "skip_if_exists", "unique_and_glob"
CONTROLS = (SKIP, GLOB)
ROWS = 10
MOST_SUBMITS = 100


@dataclass
class Control:
    """One control as a job of the cluster, submitted again whenever its driver was ended.

    Attributes:
        name: one of CONTROLS.
        environment: of a client of the cluster.
        folder: that all machines share.
    """

    name: str
    environment: Mapping[str, str]
    folder: Path
    submits: int = 0
    _thread: threading.Thread = field(init=False)

    def begin(self) -> None:
        """Begins the job."""
        self.folder.mkdir(parents=True)
        self._thread = threading.Thread(target=self._submit_until_done, daemon=True)
        self._thread.start()

    def _submit_until_done(self) -> None:
        ray = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--working-dir", str(JOB.parent), "--"]
        words = ["python", JOB.name, self.name, str(self.folder)]
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        for number in range(1, MOST_SUBMITS + 1):
            self.submits = number
            done = subprocess.run(
                [*ray, *words], env={**own, **self.environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if done.returncode == 0:
                return

    def ended(self, seconds: float) -> Account:
        """Lets the job come to its end, and waits for it; its account."""
        (self.folder / "enough").touch()
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise RuntimeError(f"control {self.name}: not done after {self.submits} submits")
        return control_account(self.folder)


def control_account(folder: Path) -> Account:
    """The rows in all files of a control, a torn one among them as it is."""
    num_blocks = 1 + max(int(re.split(r"\D", path.name)[0]) for path in folder.glob("*.rows"))
    expected: list[Row] = [(f"{block}-{row}", "") for block in range(num_blocks) for row in range(ROWS)]
    texts = (path.read_text() for path in sorted(folder.glob("*.rows")))
    return account(expected, [(line, "") for text in texts for line in text.splitlines()])
