"""The kill storm: a workload of shard, evaluate and match on three Ray machines and an S3 server, and two controls."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.chaos.accounts import Row, account, listing, stored_rows
from benchmarks.chaos.controls import CONTROLS, GLOB, SKIP, Control
from benchmarks.chaos.storm import Storm, deck
from benchmarks.chaos.workload import STAGES, Size, Workload, prepared
from infra.local_cluster.cluster import Cluster, new_cluster

NAME = "chaos"
MOST_SUBMITS = 60
"""Of one round: each driver that is ended takes one, and so may a strike that a run answers with a sentence."""

SHARED = Path("/var/tmp")
"""A folder of the host that its machines see as it is: the file server of the controls."""

CONTROL_SECONDS = 600.0

FAULTS = ("lost", "doubled", "corrupt", "foreign")
BAD_CONTROLS = ((SKIP, "lost"), (GLOB, "doubled"))


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster of a head, two workers, an S3 server and a tracking server."""
    made = new_cluster(NAME, num_workers=2, num_cpus=2)
    try:
        made.up()
        yield made
    finally:
        made.down()


def measure(
    made: Cluster, size: Size, *, seed: int, kills: int, stops: int, pause: float, seconds: float
) -> Iterator[dict[str, Any]]:
    """Runs rounds of the workload, and of the controls beside it, until the storm is over.

    Args:
        seed, kills, stops, pause, seconds: of the storm, see benchmarks.chaos.storm.

    Yields:
        figures of each round: strikes by kind, submits, accounts of ours and of the controls; in the last round's,
        whether it wrote nothing when it was asked for once more.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=SHARED) as name:
        folder = Path(name)
        workload = prepared(made, size, folder)
        print("the undisturbed run", flush=True)
        workload.submit_until_done("calm", most=1)
        expected = list(stored_rows(workload.run_folder("calm"), STAGES))
        storm = Storm(made, seed, deck(Random(seed), kills, stops), "dhpf.pipelines", CONTROLS, pause, seconds)
        storm.begin()
        for number in itertools.count(1):
            round_ = _round(workload, storm, expected, folder, number)
            if storm.is_over:
                storm.end()
                round_["rerun_wrote_nothing"] = _rerun_writes_nothing(workload, f"round{number}")
            yield {"seed": seed, **round_}
            if storm.is_over:
                return


def _round(workload: Workload, storm: Storm, expected: list[Row], folder: Path, number: int) -> dict[str, Any]:
    """One run of the workload with its controls: its strikes and accounts."""
    before, controls_before = storm.counts, Counter(storm.control_strikes)
    began = time.monotonic()
    controls = [Control(name, workload.environment, folder / f"{name}{number}") for name in CONTROLS]
    for control in controls:
        control.begin()
    submits = workload.submit_until_done(f"round{number}", MOST_SUBMITS)
    storm.settle(CONTROL_SECONDS)
    struck, control_strikes = storm.counts - before, storm.control_strikes - controls_before
    found = account(expected, stored_rows(workload.run_folder(f"round{number}"), STAGES))
    print(f"round {number}: {submits} submits, {dict(struck)}, {found}", flush=True)
    accounts = {control.name: control.ended(CONTROL_SECONDS) for control in controls}
    for name, each in accounts.items():
        print(f"control {name}: {control_strikes[name]} strikes, {each}", flush=True)
    return {
        "strikes": dict(struck),
        "seconds": round(time.monotonic() - began),
        "submits": submits,
        "rows": asdict(found),
        "controls": {name: {"strikes": control_strikes[name], **asdict(each)} for name, each in accounts.items()},
    }


def require_shown(rounds: Sequence[Mapping[str, Any]]) -> None:
    """Requires that our rows are all right, and that the same storm spoilt what the controls wrote.

    Raises:
        AssertionError: one of these is not so.
    """
    assert not any(each["rows"][kind] for each in rounds for kind in FAULTS), rounds
    assert all(each.get("rerun_wrote_nothing", True) for each in rounds), rounds
    lost, doubled = (sum(each["controls"][name][kind] for each in rounds) for name, kind in BAD_CONTROLS)
    assert lost and doubled, f"the storm met no control, and shows nothing: {rounds}"


def _rerun_writes_nothing(workload: Workload, name: str) -> bool:
    run = workload.run_folder(name)
    before = listing(run, STAGES)
    workload.submit_until_done(name, most=1)
    return bool(before) and listing(run, STAGES) == before
