from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhpf.pipelines.capacity import Demand
from dhpf.pipelines.outputs import lease
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.lease import JOB_VARIABLE, held_lease
from dhpf.pipelines.submission.doctor import examine_cluster
from dhpf.pipelines.submission.examination import Check, Examination, Report
from dhpf.storage import location_of

NOTHING = Examination(code=code_version())


def failed(report: Report) -> dict[str, Check]:
    return {check.what: check for _, check in report.rows if not check.ok}


def test_a_cluster_that_can_do_it(ray_cluster: None, tmp_path: Path) -> None:
    demands = (Demand("shard", 1, 1, 0), Demand("match", 2, 2, 0))
    wanted = dataclasses.replace(
        NOTHING, work=str(tmp_path), folder=str(tmp_path / "run"), job="run-a-0", demands=demands
    )
    report = examine_cluster(wanted)
    assert failed(report) == {} and len(report.nodes) == 1
    assert {"clock", "code", "work"} <= {check.what for check in report.nodes[0].checks}
    assert {"Ray", "shared work", "lease", "CPUs", "GPUs"} == {check.what for check in report.cluster}
    assert Report.from_plain(json.loads(json.dumps(dataclasses.asdict(report)))).rows == report.rows


@pytest.mark.parametrize(
    ("demand", "what", "remedy"),
    [
        (Demand("match", 7, 1, 0), "CPUs", "set fewer workers or actors, or smaller resources, for match"),
        (Demand("train", 2, 1, 1), "GPUs", "set fewer workers or actors, or smaller resources, for train"),
    ],
)
def test_more_than_there_is(ray_cluster: None, demand: Demand, what: str, remedy: str) -> None:
    found = failed(examine_cluster(dataclasses.replace(NOTHING, demands=(demand,))))
    assert set(found) == {what} and found[what].remedy.endswith(remedy)


def test_other_code_on_a_node(ray_cluster: None) -> None:
    found = failed(examine_cluster(Examination(code="0.0.0+other")))
    assert set(found) == {"code"} and found["code"].found == code_version()


@pytest.fixture
def driven_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a run that job run-a-7 drives."""
    monkeypatch.setattr(lease, "RENEWED_SECONDS", 0.2)
    monkeypatch.setenv(JOB_VARIABLE, "run-a-7")
    begun, ended = threading.Event(), threading.Event()

    def drive() -> None:
        with held_lease(location_of(tmp_path / "run")):
            begun.set()
            ended.wait(120)

    driver = threading.Thread(target=drive)
    driver.start()
    assert begun.wait(60)
    yield tmp_path / "run"
    ended.set()
    driver.join(timeout=30)


def test_a_run_that_another_job_drives(ray_cluster: None, driven_folder: Path) -> None:
    found = failed(examine_cluster(dataclasses.replace(NOTHING, folder=str(driven_folder), job="run-b-0")))
    assert set(found) == {"lease"} and "job run-a-7 on " in found["lease"].found
    assert "stop it by dhpf stop run-a-7" in found["lease"].remedy
    assert failed(examine_cluster(dataclasses.replace(NOTHING, folder=str(driven_folder), job="run-a-7"))) == {}
