from __future__ import annotations

import pytest

from dhpf.pipelines.capacity import Demand, demands_of, lacking
from dhpf.pipelines.workflow_file import PACKAGED_FILE, load_workflow
from dhpf.storage import location_of

SMALL = {"CPU": 3.0}
WITH_GPUS = {"CPU": 8.0, "GPU": 2.0}


def test_what_the_stages_reserve_at_least() -> None:
    settings = ["match.num_actors=3", "match.min_actors=2", "match.resources={cpus: 2, gpus: 0.5}"]
    workflow = load_workflow(PACKAGED_FILE, "quickstart", settings, location_of("data"))
    demands = {demand.stage: demand for demand in demands_of(workflow.stages)}
    assert demands["match"] == Demand("match", 2, 2, 0.5)
    assert demands["train"] == Demand("train", 2, 1, 0) and demands["shard"] == Demand("shard", 1, 1, 0)


@pytest.mark.parametrize(
    ("demand", "nodes"),
    [
        (Demand("train", 6, 1, 0), [SMALL, SMALL]),
        (Demand("train", 2, 2, 0), [SMALL, SMALL]),
        (Demand("train", 3, 2, 0), [SMALL] * 3 + [{"memory": 1e9}]),
        (Demand("train", 4, 1, 1), [WITH_GPUS, WITH_GPUS]),
        (Demand("match", 4, 1, 0.5), [WITH_GPUS]),
    ],
)
def test_what_fits(demand: Demand, nodes: list[dict[str, float]]) -> None:
    assert list(lacking([demand], nodes, {})) == []


@pytest.mark.parametrize(
    ("demand", "nodes", "what", "found"),
    [
        (Demand("match", 7, 1, 0), [SMALL, SMALL], "CPUs", "6, 7 asked by match"),
        (Demand("train", 1, 4, 0), [SMALL, SMALL], "CPUs", "4 asked at once, 3 on the largest node"),
        (Demand("train", 2, 1, 1), [SMALL, SMALL], "GPUs", "0, 2 asked by train"),
        (Demand("train", 1, 1, 3), [WITH_GPUS] * 2, "GPUs", "3 asked at once, 2 on the largest node"),
        (
            Demand("train", 3, 2, 0),
            [SMALL, SMALL, {"CPU": 1.0}, {"CPU": 1.0}],
            "CPUs",
            "the nodes have room for 2 processes of 2 CPUs each, train has 3",
        ),
        (
            Demand("match", 3, 5, 1),
            [WITH_GPUS, WITH_GPUS, {"CPU": 4.0}],
            "GPUs",
            "the nodes have room for 2 processes of 5 CPUs and 1 GPUs each, match has 3",
        ),
    ],
)
def test_what_is_lacking(demand: Demand, nodes: list[dict[str, float]], what: str, found: str) -> None:
    lacks = [(lack.what, lack.found) for lack in lacking([Demand("shard", 1, 1, 0), demand], nodes, {})]
    assert lacks == [(what, found)]


def test_what_an_autoscaler_may_add_counts() -> None:
    assert list(lacking([Demand("train", 2, 4, 1)], [SMALL], {"CPU": 16.0, "GPU": 2.0})) == []
