"""Looks at a whole cluster from within: at each machine by a task that runs there, and at what they are together.

As a module it is the driver of the job that `dhpf doctor --address` sends: it prints its report as one line.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray._private.state import state as ray_state

from dhpf.errors import InputError
from dhpf.pipelines.capacity import KINDS, lacking, offered
from dhpf.pipelines.outputs.lease import require_free
from dhpf.pipelines.outputs.shared_work import ask_each, require_shared
from dhpf.pipelines.submission.examination import REPORT_MARK, Check, Examination, NodeReport, Report
from dhpf.pipelines.submission.node_checks import examine_machine
from dhpf.planning.plan_summary import counted
from dhpf.storage import is_uri, location_of

ANSWER_SECONDS = 150.0
"""How long a node may take: it starts a process, loads torch, and asks servers that may not answer."""

MOST_SECONDS_APART = 60.0
"""By which clocks may differ. An S3 store refuses requests whose time is 15 minutes away from its own."""


def examine_cluster(wanted: Examination) -> Report:
    """Looks at every node of the cluster that this process has joined."""
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    asked = time.time()
    names = ask_each(nodes, examine_machine, lambda address: (wanted, address), ANSWER_SECONDS)
    answers = [_answer(reference, name) for reference, name in names.items()]
    reports = [_with_clock(answer, asked, time.time()) for answer in answers]
    return Report(reports, list(_together(wanted, nodes)))


def _answer(reference: Any, name: str) -> NodeReport:
    remedy = "look at the node's Ray logs; its Python and its packages must be those of the head"
    try:
        report: NodeReport = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        check = Check("answer", False, f"none within {ANSWER_SECONDS:.0f} s", remedy)
        return NodeReport(name, time.time(), [check])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        return NodeReport(name, time.time(), [Check("answer", False, reason, remedy)])
    return report


def _with_clock(report: NodeReport, asked: float, answered: float) -> NodeReport:
    """Adds by how much a node's clock is outside the time within which it was asked and answered."""
    apart = max(0.0, asked - report.seconds, report.seconds - answered)
    check = Check("clock", apart <= MOST_SECONDS_APART, f"{apart:.0f} s off", "set its clock, such as by NTP")
    return dataclasses.replace(report, checks=[*report.checks, check])


def _together(wanted: Examination, nodes: Sequence[Mapping[str, Any]]) -> list[Check]:
    checks = [Check("Ray", True, f"{ray.__version__} on {counted(len(nodes), 'node')}")]
    if wanted.work is not None:
        tracking = wanted.tracking or ("" if is_uri(wanted.work) else f"sqlite:///{wanted.work}/mlflow.db")
        work = location_of(wanted.work)
        checks.append(_said("shared work", "seen by every node", lambda: require_shared(work, tracking)))
    if wanted.folder is not None and wanted.job is not None:
        folder, job = location_of(wanted.folder), wanted.job
        checks.append(_said("lease", f"{folder} is free", lambda: require_free(folder, job)))
    most = ray_state.get_max_resources_from_cluster_config() or {}
    resources = [node["Resources"] for node in nodes]
    lacks = {lack.what: lack for lack in lacking(wanted.demands, resources, most)}
    for kind in KINDS:
        lack = lacks.get(f"{kind}s")
        there = Check(f"{kind}s", True, f"{offered(kind, resources, most):g}")
        checks.append(there if lack is None else Check(lack.what, False, lack.found, lack.remedy))
    return checks


def _said(what: str, found: str, look: Callable[[], None]) -> Check:
    try:
        look()
    except (InputError, OSError) as error:
        sentence, _, remedy = str(error).rpartition("; ")
        return Check(what, False, sentence or str(error), remedy)
    return Check(what, True, found)


def main() -> None:
    """Examines the cluster of the job that this is the driver of; its one argument is the Examination as JSON."""
    ray.init(logging_level=logging.WARNING, log_to_driver=False)
    report = examine_cluster(Examination.from_plain(json.loads(sys.argv[1])))
    print(REPORT_MARK + json.dumps(dataclasses.asdict(report)))


if __name__ == "__main__":
    main()
