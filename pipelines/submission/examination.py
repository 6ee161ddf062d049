"""What `dhpf doctor` asks of the machines of a cluster, and what they answer, as both travel between machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dhpf.pipelines.capacity import Demand

REPORT_MARK = "dhpf doctor: "
"""What the line begins with that holds a job's report as JSON."""


@dataclass(frozen=True)
class Examination:
    """What has to be looked at.

    Attributes:
        code: version of the code that should run.
        work, data: a path or a URI each; None: not looked at.
        tracking: of MLflow; None: not looked at.
        folder: of the run that would begin, a path or a URI.
        job: id of the job that would begin.
        weights: (backbone, file of weights) of the workflow's models.
        demands: of its stages.
    """

    code: str
    work: str | None = None
    data: str | None = None
    tracking: str | None = None
    folder: str | None = None
    job: str | None = None
    weights: Sequence[tuple[str, str | None]] = ()
    demands: Sequence[Demand] = field(default_factory=tuple)

    @staticmethod
    def from_plain(content: Mapping[str, Any]) -> Examination:
        """The inverse of dataclasses.asdict."""
        weights = tuple((str(backbone), weights) for backbone, weights in content["weights"])
        demands = tuple(Demand(**demand) for demand in content["demands"])
        return Examination(**{**content, "weights": weights, "demands": demands})


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: its name.
        ok: whether it is as it should be.
        found: what was seen.
        remedy: what to do if it is not ok.
        needed: whether no run can begin without it.
    """

    what: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True


@dataclass(frozen=True)
class NodeReport:
    """What was seen on one machine.

    Attributes:
        node: its name and its address.
        seconds: its clock, since 1970.
    """

    node: str
    seconds: float
    checks: Sequence[Check]


@dataclass(frozen=True)
class Report:
    """What was seen on all machines.

    Attributes:
        cluster: what is not of one machine.
    """

    nodes: Sequence[NodeReport]
    cluster: Sequence[Check] = ()

    @property
    def rows(self) -> list[tuple[str, Check]]:
        """(where, check) of every check."""
        of_nodes = [(report.node, check) for report in self.nodes for check in report.checks]
        return of_nodes + [("cluster", check) for check in self.cluster]

    @property
    def ready(self) -> bool:
        """Whether a run can begin."""
        return all(check.ok or not check.needed for _, check in self.rows)

    @staticmethod
    def from_plain(content: Mapping[str, Any]) -> Report:
        """The inverse of dataclasses.asdict."""
        nodes = [
            NodeReport(node["node"], node["seconds"], [Check(**check) for check in node["checks"]])
            for node in content["nodes"]
        ]
        return Report(nodes, [Check(**check) for check in content["cluster"]])
