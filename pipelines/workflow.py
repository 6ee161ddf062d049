"""Runs a workflow: its stages in order, skipping outputs that are complete, and logs each stage to MLflow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dhpf.checkpoint import build_network
from dhpf.errors import InputError
from dhpf.pipelines.blocks.retrying import Retry
from dhpf.pipelines.config import StageConfig, Workflow, deciding_settings_and_inputs
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stage_runs.context import Outcome, Stage, StageContext
from dhpf.pipelines.stage_runs.description import description, job_tags
from dhpf.pipelines.stage_runs.evaluate import EVALUATE
from dhpf.pipelines.stage_runs.match import MATCH
from dhpf.pipelines.stage_runs.search import SEARCH
from dhpf.pipelines.stage_runs.shard import SHARD
from dhpf.pipelines.stage_runs.train import TRAIN
from dhpf.pipelines.tracking.runs import StageRun, WorkflowLog, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import Location

STAGE_RUNS: Mapping[str, Stage] = MappingProxyType(
    {"shard": SHARD, "search": SEARCH, "train": TRAIN, "evaluate": EVALUATE, "match": MATCH}
)
"""How each stage is run, by the name of the Workflow field that holds its config."""


class WorkflowRun:
    """A workflow that runs, or goes on, in one folder.

    Args:
        workflow: what to do.
        folder: where its stages write, one sub-folder each.
        tracker: MLflow.
        retry: if given, failed pairs are tried again, of complete outputs, too.
    """

    def __init__(self, workflow: Workflow, folder: Location, tracker: Tracker, retry: Retry | None = None) -> None:
        self.workflow, self.folder, self.tracker = workflow, folder, tracker
        self.context = StageContext(workflow, folder, tracker, retry=retry)

    def check(self, only: str | None = None) -> None:
        """Finds mistakes before anything is started that would otherwise stop the run in the middle.

        Builds every untrained model of the stages once, in this process, and compares the plan of every output that an
        earlier run began with the settings.

        Raises:
            InputError: weights are missing, the backbone lacks a layer, or an output was made with other settings.
        """
        stages = self.stages(only)
        for name, config in stages.items():
            for folder, settings in STAGE_RUNS[name].settings(config, self.context).items():
                StageOutput(self.context.folder_of(name) / folder).require_settings(settings)
        models = (model for name, config in stages.items() for model in STAGE_RUNS[name].models(config, self.context))
        for model in dict.fromkeys(models):
            build_network(model)

    def run(self, only: str | None = None) -> Outcome:
        """Runs the stages that the workflow has, or only one of them; needs a Ray cluster."""
        model, stages, outcome = dataclasses.asdict(self.workflow.model), self.stages(only), self.context.outcome
        runs: dict[str, StageRun] = {}
        with workflow_run(self.tracker, self.workflow.name, self.folder) as parent:
            parent.set_tags(job_tags())
            parent.describe(description(self.workflow, stages, self.folder, outcome))
            for name, config in stages.items():
                with parent.stage(name) as runs[name]:
                    runs[name].log_config(_settings(config) | {"model": model}, _identity(config, model))
                    STAGE_RUNS[name].run(config, self.context, runs[name])
            self._log_results(parent, stages)
        outcome.run_page = parent.page()
        outcome.retried = self.context.retry.results if self.context.retry else {}
        outcome.pictures |= {name: folder for name, run in runs.items() if (folder := run.picture_folder())}
        return outcome

    def _log_results(self, parent: WorkflowLog, stages: Mapping[str, StageConfig]) -> None:
        """What runs are compared by, in the run of the workflow itself."""
        outcome = self.context.outcome
        parent.log_metrics(outcome.metrics)
        for on, picture in outcome.comparisons.items():
            parent.log_picture(picture, f"pictures/{on}/comparison.png")
        parent.describe(description(self.workflow, stages, self.folder, outcome))

    def stages(self, only: str | None = None) -> dict[str, StageConfig]:
        """The stages that the workflow has, or only one of them.

        Raises:
            InputError: the workflow has no stage of that name.
        """
        stages = self.workflow.stages
        if only is None:
            return stages
        if only not in stages:
            raise InputError(f"--only {only}: workflow {self.workflow.name} has the stages {', '.join(stages)}")
        return {only: stages[only]}


def _settings(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def _identity(config: StageConfig, model: Mapping[str, Any]) -> dict[str, Any]:
    """What tells one MLflow run of a stage from another: all that can decide the stage's result."""
    return {"settings": deciding_settings_and_inputs(config), "workflow_model": model}
