"""What the stages of a workflow reserve, and whether the machines of a cluster have room for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dhpf.pipelines.config import StageConfig

KINDS = ("CPU", "GPU")


@dataclass(frozen=True)
class Demand:
    """What a stage reserves at least.

    Attributes:
        processes: the fewest workers or actors that it begins with.
        cpus, gpus: of each of them.
    """

    stage: str
    processes: int
    cpus: float
    gpus: float

    def each(self, kind: str) -> float:
        """What one process reserves of a kind."""
        return self.cpus if kind == "CPU" else self.gpus

    def together(self, kind: str) -> float:
        """What all processes reserve of a kind."""
        return self.processes * self.each(kind)


@dataclass(frozen=True)
class Lack:
    """What a cluster lacks.

    Attributes:
        what: CPUs or GPUs.
        found: what is there, and what is asked.
    """

    what: str
    found: str
    remedy: str


def demands_of(stages: Mapping[str, StageConfig]) -> tuple[Demand, ...]:
    """What stages reserve."""
    return tuple(
        Demand(stage, config.processes[0], config.resources.cpus, config.resources.gpus)
        for stage, config in stages.items()
    )


def lacking(
    demands: Sequence[Demand], nodes: Sequence[Mapping[str, float]], most: Mapping[str, float]
) -> Iterator[Lack]:
    """What a cluster lacks for stages that run one after the other; nothing where it has room for each of them.

    Args:
        nodes: the resources of each node, in use or not.
        most: what an autoscaler may let the cluster grow to; empty without one.
    """
    if not demands:
        return
    lacks = [lack for kind in KINDS for lack in _too_few(kind, demands, nodes, most)]
    yield from lacks
    if not lacks and not most:
        yield from _too_large(demands, nodes)


def offered(kind: str, nodes: Sequence[Mapping[str, float]], most: Mapping[str, float]) -> float:
    """How much of a kind there is, or may be once an autoscaler has added nodes."""
    return max(sum(node.get(kind, 0) for node in nodes), most.get(kind, 0))


def _too_few(
    kind: str, demands: Sequence[Demand], nodes: Sequence[Mapping[str, float]], most: Mapping[str, float]
) -> Iterator[Lack]:
    """Whether the cluster has enough of a kind for the hungriest stage, and a node for the largest process."""
    hungriest = max(demands, key=lambda demand: demand.together(kind))
    largest = max(demands, key=lambda demand: demand.each(kind))
    there, asked = offered(kind, nodes, most), hungriest.together(kind)
    on_one = max([node.get(kind, 0) for node in nodes] + [most.get(kind, 0)])
    if there < asked:
        remedy = f"add nodes, or set fewer workers or actors, or smaller resources, for {hungriest.stage}"
        yield Lack(f"{kind}s", f"{there:g}, {asked:g} asked by {hungriest.stage}", remedy)
    elif on_one < largest.each(kind):
        found = f"{largest.each(kind):g} asked at once, {on_one:g} on the largest node"
        yield Lack(f"{kind}s", found, f"add a larger node, or set smaller resources for {largest.stage}")


def _too_large(demands: Sequence[Demand], nodes: Sequence[Mapping[str, float]]) -> Iterator[Lack]:
    """Whether the processes of each stage find a node each that has all that one of them asks for."""
    for demand in demands:
        fitting = sum(min(_times(node, kind, demand.each(kind)) for kind in KINDS) for node in nodes)
        if fitting < demand.processes:
            asked = f"{demand.cpus:g} CPUs" + (f" and {demand.gpus:g} GPUs" if demand.gpus else "")
            found = f"the nodes have room for {fitting:g} processes of {asked} each, {demand.stage} has"
            remedy = f"add nodes, or set fewer workers or actors, or smaller resources, for {demand.stage}"
            yield Lack("CPUs" if not demand.gpus else "GPUs", f"{found} {demand.processes}", remedy)


def _times(node: Mapping[str, float], kind: str, each: float) -> float:
    """How many processes a node has enough of a kind for."""
    return node.get(kind, 0) // each if each else float("inf")
