"""The interface between a workflow and its stages: how a stage is run, finds its inputs, and reports what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhpf.checkpoint import load_network
from dhpf.config import ModelConfig
from dhpf.drawing import Picture
from dhpf.pipelines.blocks.retrying import Retried, Retry
from dhpf.pipelines.config import Workflow
from dhpf.pipelines.inputs.block_source import BlockSource
from dhpf.pipelines.inputs.collection import Collection
from dhpf.pipelines.inputs.model_source import ModelSource, checkpoint_for_workers
from dhpf.pipelines.inputs.shard_set import ShardSet, open_shard_set
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.registered_source import registered_source
from dhpf.pipelines.stages.search import searched_model
from dhpf.pipelines.stages.train import trained_checkpoint
from dhpf.pipelines.tracking.datasets import ReadDataset, Use
from dhpf.pipelines.tracking.runs import StageRun
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.pipelines.workflow_file import STAGE_MODELS, method_model
from dhpf.storage import Location


@dataclass(frozen=True)
class ScoreTable:
    """The scores of several methods on one shard set.

    Attributes:
        columns: names of the scores.
        rows: method -> a text for each column.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class StageReport:
    """A stage's report of one of its outputs.

    Attributes:
        facts: for programs, plain values.
        lines: the same for people.
        table: shown below the lines.
    """

    stage: str
    facts: Mapping[str, Any]
    lines: Sequence[str]
    table: ScoreTable | None = None


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        reports: of its stages, in order.
        num_rejected: rows of a list, or pairs of a source, that cannot be used and so were never matched.
        first_rejection: why, for the first of them.
        num_failed: pairs that the match stage took up and could not match.
        first_failure: why, for the first of them.
        metrics: the final numbers of every stage, by STAGE/NAME: those that runs are compared by.
        comparisons: the pictures that compare methods, by shard set.
        pictures: where the pictures of each stage lie.
        run_page: path of the run's page on MLflow's server.
        retried: of outputs whose failed pairs were tried again, what came of it, by the output's title.
    """

    reports: list[StageReport] = field(default_factory=list)
    num_rejected: int = 0
    first_rejection: str = ""
    num_failed: int = 0
    first_failure: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    comparisons: dict[str, Picture] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    run_page: str = ""
    retried: Mapping[str, Retried] = field(default_factory=dict)

    def report(self, stage: str, facts: Mapping[str, Any], *lines: str, table: ScoreTable | None = None) -> None:
        """Adds a stage's report."""
        self.reports.append(StageReport(stage, facts, lines, table))

    def measure(self, stage: str, metrics: Mapping[str, Any]) -> None:
        """Adds final numbers of a stage."""
        self.metrics |= {f"{stage}/{name}": float(value) for name, value in metrics.items()}

    def reject(self, number: int, reason: object) -> None:
        """Counts rejected pairs or rows."""
        if number:
            self.num_rejected += number
            self.first_rejection = self.first_rejection or str(reason)

    def fail(self, number: int, reason: object) -> None:
        """Counts pairs that could not be matched."""
        if number:
            self.num_failed += number
            self.first_failure = self.first_failure or str(reason)


@dataclass(frozen=True)
class StageContext:
    """A workflow in its folder, as its stages see it.

    Attributes:
        folder: where the stages write, one sub-folder each.
        tracker: connection to MLflow.
        outcome: what the stages have done so far.
        retry: if given, the stages try the failed pairs of their outputs again.
    """

    workflow: Workflow
    folder: Location
    tracker: Tracker
    outcome: Outcome = field(default_factory=Outcome)
    retry: Retry | None = None

    def folder_of(self, stage: str) -> Location:
        """Where a stage writes."""
        return self.folder / stage

    def shard_set(self, name: str) -> ShardSet:
        """A complete shard set; an InputError where it is not."""
        return open_shard_set(self.folder_of("shard"), name)

    def dataset(self, pairs: BlockSource, use: Use) -> ReadDataset:
        """A shard set or a collection, as tracking names what a stage reads."""
        source = pairs.config.root if isinstance(pairs, Collection) else str(self.folder_of("shard") / pairs.name)
        return ReadDataset(pairs.name, pairs.digest, source, pairs.num_pairs, use)

    def untrained_models(self, choices: Mapping[str, str | Mapping[str, Any]]) -> Iterable[ModelConfig]:
        """Those among the choices of models that are given by their configuration.

        Args:
            choices: by the place where each stands below the workflow.
        """
        for place, choice in choices.items():
            if not isinstance(choice, str):
                yield self._configured(choice, place)

    def stage_to_come(self, choice: str | Mapping[str, Any]) -> str | None:
        """The stage of the workflow that still has to make the chosen model; None for a model that can be had now."""
        stage = STAGE_MODELS.get(choice) if isinstance(choice, str) else None
        return stage if stage is not None and StageOutput(self.folder_of(stage)).manifest() is None else None

    def planned_model(self, choice: str | Mapping[str, Any], place: str) -> dict[str, Any]:
        """The part of a plan that identifies the chosen model, as far as it is known before anything has run."""
        return {} if isinstance(choice, str) else {"model": self.model(choice, place).identity()}

    def model(self, choice: str | Mapping[str, Any], place: str) -> ModelSource:
        """The model that a stage's choice means.

        Args:
            choice: "trained", "searched", a checkpoint's path, models:/NAME@ALIAS, or fields of the model.
            place: where it stands below the workflow, for an error.

        Raises:
            InputError: there is no such model, or it cannot be used.
        """
        if not isinstance(choice, str):
            return ModelSource(config=self._configured(choice, place))
        weights = self.workflow.model.weights
        if choice == "trained":
            return ModelSource(checkpoint=str(trained_checkpoint(self.folder_of("train"))), weights=weights)
        if choice == "searched":
            return ModelSource(config=searched_model(self.folder_of("search")))
        if choice.startswith("models:/"):
            return registered_source(self.tracker, choice, self.folder, weights)
        load_network(choice, own=weights)  # a bad checkpoint is reported here, and not by every actor
        return ModelSource(checkpoint=checkpoint_for_workers(Path(choice), self.folder), weights=weights)

    def _configured(self, choice: Mapping[str, Any], place: str) -> ModelConfig:
        return method_model(self.workflow, choice, f"{self.workflow.name}.{place}")


@dataclass(frozen=True)
class Stage:
    """A stage as a workflow runs it; the registry of them is dhpf.pipelines.workflow.STAGE_RUNS.

    Attributes:
        run: runs it with its config, in a Ray cluster; what is complete is left as it is.
        models: the untrained models that it builds; an InputError for one that cannot be configured.
        settings: the part of each output's plan that is known before any input is read, by the output's folder below
            that of the stage. An output whose plan differs is refused before anything is started.
    """

    run: Callable[[Any, StageContext, StageRun], None]
    settings: Callable[[Any, StageContext], Mapping[str, Mapping[str, Any]]]
    models: Callable[[Any, StageContext], Iterable[ModelConfig]] = lambda config, context: ()
