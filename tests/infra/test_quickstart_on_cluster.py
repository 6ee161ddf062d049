"""The quickstart on several machines that share nothing, submitted from a machine that has the wheel alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
import pytest

from tests.infra.cluster_client import ended, needs_root

if TYPE_CHECKING:
    from tests.infra.cluster_client import WheelClient

STAGES = {"shard", "search", "train", "evaluate", "match"}

SMALLER = [
    "shard.sources.photo-warps.options={views: 2, keypoints: 6}",
    "shard.max_pairs=4",
    "search={on: photo-warps/val, beam: 1, max_layers: 2, max_pairs: 2}",
    "train.epochs=2",
    "train.batch_size=4",
    "evaluate.methods={dynamic: trained, searched: searched}",
]


@needs_root
@pytest.mark.cluster
@pytest.mark.slow
def test_every_stage_runs_on_two_machines_and_all_is_found_afterwards(wheel_client: WheelClient) -> None:
    done = ended(wheel_client.submit("quickstart", "whole", SMALLER), seconds=900)
    assert done.returncode == 0, done.stderr
    [job] = wheel_client.jobs("whole")
    for task in ("BlockActor.work", "SetScorer.score", "RayTrainWorker.run_train_fn"):
        assert set(wheel_client.machines_of(task, job)) == {"worker1", "worker2"}, task

    client = mlflow.MlflowClient(wheel_client.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("quickstart")
    found = client.search_runs([experiment.experiment_id], "attributes.run_name LIKE 'whole%'")
    runs = {run.data.tags["dhpf.stage"]: run for run in found}
    assert set(runs) == STAGES | {"workflow"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    [version] = client.search_model_versions(f"run_id = '{runs['train'].info.run_id}'")
    assert version.name == "dhpf"
    for stage in ("train", "evaluate", "match"):
        assert client.list_artifacts(runs[stage].info.run_id, "pictures"), stage
        assert runs[stage].inputs.dataset_inputs, stage
