"""The kill storm: a workload of shard, evaluate and match on three Ray machines and an S3 server, and two controls."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.chaos.accounts import NOTHING, Account, Row, account, listing, stored_rows
from benchmarks.chaos.controls import CONTROLS, GLOB, SKIP, Control
from benchmarks.chaos.storm import Storm, deck
from benchmarks.chaos.workload import STAGES, Size, Workload, prepared
from infra.local_cluster.cluster import Cluster, new_cluster

NAME = "chaos"
MOST_SUBMITS = 60
"""Of one round: each driver that is ended takes one, and so may a strike that a run answers with a sentence."""

SHARED = Path("/var/tmp")
"""A folder of the host that its machines see as it is: the file server of the controls."""

CONTROL_SECONDS = 300.0


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster of a head, two workers, an S3 server and a tracking server."""
    made = new_cluster(NAME, num_workers=2, num_cpus=2)
    try:
        made.up()
        yield made
    finally:
        made.down()


def measure(made: Cluster, size: Size, *, seed: int, kills: int, stops: int, pause: float, seconds: float) -> Any:
    """Runs rounds of the workload until the storm is over.

    Args:
        seed, kills, stops, pause: of the storm, see benchmarks.chaos.storm.
        seconds: after so many the storm ends, even if not all strikes were done.

    Returns:
        figures: strikes by kind, rounds, accounts of ours and of the controls.

    Raises:
        AssertionError: a control neither lost nor doubled, so that the storm shows nothing.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=SHARED) as name:
        folder = Path(name)
        workload = prepared(made, size, folder)
        print("the undisturbed run", flush=True)
        workload.submit_until_done("calm", most=1)
        expected = list(stored_rows(workload.run_folder("calm"), STAGES))
        storm = Storm(made, seed, deck(Random(seed), kills, stops), "dhpf.pipelines", CONTROLS, pause)
        controls = [Control(name, workload.environment, folder / name) for name in CONTROLS]
        for control in controls:
            control.begin()
        storm.begin()
        rounds = list(_rounds(workload, storm, expected, seconds))
        strikes = storm.end()
        wrote_nothing = _rerun_writes_nothing(workload, f"round{len(rounds)}")
        accounts = {control.name: control.ended(CONTROL_SECONDS) for control in controls}
        for control in controls:
            print(f"control {control.name}: {accounts[control.name]}", flush=True)
    assert accounts[SKIP].lost and accounts[GLOB].doubled, f"the storm met no control: {accounts}"
    total = sum((Account(**each["rows"]) for each in rounds), NOTHING)
    return {
        "seed": seed,
        "kills": strikes.total() - strikes["stop"],
        "stops": strikes["stop"],
        "strikes": dict(strikes),
        "seconds": round(storm.strikes[-1][0]),
        "rounds": rounds,
        "rows": asdict(total),
        "is_exact": total.is_exact,
        "rerun_wrote_nothing": wrote_nothing,
        "controls": {name: asdict(each) | {"strikes": storm.control_strikes[name]} for name, each in accounts.items()},
    }


def _rounds(workload: Workload, storm: Storm, expected: list[Row], seconds: float) -> Iterator[dict[str, Any]]:
    """Rounds of the workload until the storm is over, each with its account."""
    deadline = time.monotonic() + seconds
    number = 0
    while number == 0 or not storm.is_over:
        number += 1
        before = len(storm.strikes)
        submits = workload.submit_until_done(f"round{number}", MOST_SUBMITS)
        if time.monotonic() > deadline:
            storm.end()
        found = account(expected, stored_rows(workload.run_folder(f"round{number}"), STAGES))
        print(f"round {number}: {submits} submits, {found}", flush=True)
        yield {"submits": submits, "strikes": len(storm.strikes) - before, "rows": asdict(found)}


def _rerun_writes_nothing(workload: Workload, name: str) -> bool:
    run = workload.run_folder(name)
    before = listing(run, STAGES)
    workload.submit_until_done(name, most=1)
    return bool(before) and listing(run, STAGES) == before
