"""A workflow: its stages in order, each skipped where it is complete, all of them tracked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhpf.checkpoint import build_network, load_network
from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.model.backbone import load_backbone
from dhpf.pipelines.config import STAGES, MatchConfig, StageName, TrainConfig, Workflow
from dhpf.pipelines.inputs.block_source import BlockSource
from dhpf.pipelines.inputs.collection import Collection, open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import ShardSet, joined, open_shard_set
from dhpf.pipelines.layer_search.beam import Level, best_set
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.pictures import (
    class_picture,
    comparison_picture,
    correspondence_pictures,
    method_pictures,
    search_baselines,
    search_picture,
)
from dhpf.pipelines.stages.evaluate import MethodScores, evaluate
from dhpf.pipelines.stages.match import estimate_run, match
from dhpf.pipelines.stages.search import complete_search, search, searched_model
from dhpf.pipelines.stages.shard import shard
from dhpf.pipelines.stages.train import train
from dhpf.pipelines.tracking.fetching import fetch_version
from dhpf.pipelines.tracking.model_card import ModelCard, TrainingData
from dhpf.pipelines.tracking.registering import register_model
from dhpf.pipelines.tracking.runs import StageRun, stage_run, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.pipelines.training.pictures import training_pictures
from dhpf.pipelines.workflow_file import method_model, search_model
from dhpf.results import reading_line


@dataclass
class Outcome:
    """What a run did, for its closing summary.

    Attributes:
        lines: of the summary.
        num_rejected: pairs that could not be used.
        first_rejection: why, for the first of them.
    """

    lines: list[str] = field(default_factory=list)
    num_rejected: int = 0
    first_rejection: str = ""


class WorkflowRun:
    """One workflow in one folder.

    Args:
        workflow: what to do.
        folder: where its stages write, one sub-folder each.
        tracker: MLflow.
    """

    def __init__(self, workflow: Workflow, folder: Path, tracker: Tracker) -> None:
        self.workflow, self.folder, self.tracker = workflow, folder, tracker
        self.outcome = Outcome()

    def require_models(self, only: StageName | None = None) -> None:
        """Builds once, in this process, every model that the stages configure.

        Raises:
            InputError: weights that cannot be had, or layers that the backbone does not have; before anything runs.
        """
        for config in dict.fromkeys(self._configured_models(self._stages(only))):
            build_network(config)

    def run(self, only: StageName | None = None) -> Outcome:
        """Runs the stages that the workflow has, or only one of them; needs a Ray cluster."""
        with workflow_run(self.tracker, self.workflow.name, self.folder) as parent:
            for stage in self._stages(only):
                with stage_run(self.tracker, self.workflow.name, parent, stage) as run:
                    run.log_config(dataclasses.asdict(getattr(self.workflow, stage)) | {"model": self._model_dict()})
                    getattr(self, f"_{stage}")(run)
        return self.outcome

    def _stages(self, only: StageName | None) -> list[StageName]:
        stages = [s for s in STAGES if getattr(self.workflow, s) is not None]
        if only is None:
            return stages
        if only not in stages:
            raise InputError(f"--only {only}: workflow {self.workflow.name} has the stages {', '.join(stages)}")
        return [only]

    def _configured_models(self, stages: Sequence[StageName]) -> Iterator[ModelConfig]:
        workflow = self.workflow
        if "search" in stages:
            yield search_model(workflow)
        if "train" in stages:
            yield workflow.model
        choices: dict[str, str | Mapping[str, Any]] = {}
        if workflow.evaluate is not None and "evaluate" in stages:
            choices |= {f"evaluate.methods.{name}": choice for name, choice in workflow.evaluate.methods.items()}
        if workflow.match is not None and "match" in stages:
            choices["match.model"] = workflow.match.model
        for place, choice in choices.items():
            if not isinstance(choice, str):
                yield method_model(workflow, choice, f"{workflow.name}.{place}")

    # -- stages --

    def _shard(self, run: StageRun) -> None:
        assert self.workflow.shard is not None
        for shards in shard(self.workflow.shard, self.folder / "shard"):
            record = shards.record
            rejected = int(record["num_rejected"])
            self._say(
                f"shard     {shards.name}: {record['num_pairs']} pairs, {record['num_images']} images in "
                f"{len(shards.shards)} shards, {rejected} rejected"
            )
            if rejected:
                self.outcome.num_rejected += rejected
                self.outcome.first_rejection = self.outcome.first_rejection or str(record["first_rejection"])
            counts = {k: float(record[k]) for k in ("num_pairs", "num_images", "num_rejected", "num_bytes")}
            run.log_metrics({f"{shards.name}/{k}": v for k, v in counts.items()})
            run.set_tags({f"dataset {shards.name}": shards.digest})

    def _search(self, run: StageRun) -> None:
        config = self.workflow.search
        assert config is not None
        shards = self._open(config.on)
        run.set_tags({f"dataset {shards.name}": shards.digest})

        def log_level(level: Level) -> None:
            best = best_set([level])
            run.log_metrics({"best_pck": best.pck, "num_sets": len(level)}, step=len(best.layers))

        found = search(search_model(self.workflow), config, shards, self.folder / "search", log_level)
        run.log_text(found.csv(), "sets.csv")
        run.log_picture(search_picture(found), "pictures/search.png")
        layers = ", ".join(map(str, found.best.layers))
        run.set_tags({"layers": layers})
        self._say(
            f"search    {found.on}: best of {found.num_sets} sets on {found.num_pairs} pairs is {layers} "
            f"({found.metric} {100 * found.best.pck:.1f})"
        )

    def _train(self, run: StageRun) -> None:
        config = self.workflow.train
        assert config is not None
        parts, val_set = [self._open(on) for on in config.train_sets], self._open(config.validation_set)
        run.set_tags({f"dataset {s.name}": s.digest for s in (*parts, val_set)})
        if config.gates_start == "searched":
            found = searched_model(self.folder / "search")
            config = dataclasses.replace(config, gates_start=found.fixed_layers)
        where = (run.tracking_uri, run.run_id)
        trained = train(self.workflow.model, config, joined(parts), val_set, self.folder / "train", where)
        metric = f"PCK@{config.supervision.alpha:g} {val_set.thresholds[0]}"
        for name, picture in training_pictures(trained.history, metric, self._baselines(val_set, metric)):
            run.log_picture(picture, f"pictures/{name}.png")
        run.log_file(trained.checkpoint, "checkpoint")
        best = trained.history[trained.best_epoch - 1]
        card = self._model_card(config, (*parts, val_set), {"val_pck": best["val_pck"], "epoch": trained.best_epoch})
        version = register_model(self.tracker, run, self.workflow.registered_model, trained.checkpoint, card)
        self._say(
            f"train     best of {len(trained.history)} epochs is {trained.best_epoch} "
            f"(validation PCK {best['val_pck']:.3f}): {trained.checkpoint}"
        )
        self._say(f"          registered as {self.workflow.registered_model} version {version}")
        if self.workflow.promotion is not None:
            self._say(f"          dhpf models promote {self.workflow.name} makes it champion if it passes")

    def _baselines(self, val_set: ShardSet, metric: str) -> dict[str, float]:
        """What the search found on the validation pairs by this metric, to compare a training with."""
        config = self.workflow.search
        if config is None or config.on != val_set.name:
            return {}
        found = complete_search(config, val_set, self.folder / "search")
        return {} if found is None or found.metric != metric else search_baselines(found)

    def _evaluate(self, run: StageRun) -> None:
        config = self.workflow.evaluate
        assert config is not None
        sets = {on: self._open(on) for on in config.on}
        models = {name: self._model(m, f"evaluate.methods.{name}") for name, m in config.methods.items()}
        run.set_tags({f"dataset {s.name}": s.digest for s in sets.values()})
        results = evaluate(config, sets, models, self.folder / "evaluate")
        for result in results:
            run.log_metrics({f"{result.on}/{result.method}/{k}": v for k, v in result.summary.items()})
            if result.predictions.num_rows:
                num_layers = self._num_layers(models[result.method])
                for name, picture in method_pictures(result, sets[result.on], num_layers):
                    run.log_picture(picture, f"pictures/{result.on}/{result.method}/{name}.png")
        for on in config.on:
            of_set = [r for r in results if r.on == on]
            if any(len(r.summary) > 2 for r in of_set):
                run.log_picture(comparison_picture(of_set, f"Methods on {on}"), f"pictures/{on}/comparison.png")
                run.log_picture(class_picture(of_set), f"pictures/{on}/comparison-per-class.png")
            for line in score_table(of_set):
                self._say(line)

    def _match(self, run: StageRun) -> None:
        config = self.workflow.match
        assert config is not None
        model = self._model(config.model, "match.model")
        run.set_tags({"model": str(model.identity())})
        for on in config.on:
            self._match_one(run, config, self._open(on), model)
        for name in config.collections:
            with self._collection(config, name, model, StageOutput(self.folder / "match" / name).scratch) as pairs:
                self._match_one(run, config, pairs, model)

    def _match_one(self, run: StageRun, config: MatchConfig, pairs: BlockSource, model: ModelSource) -> None:
        name = pairs.name
        result = match(config, pairs, model, self.folder / "match", run.log_metrics)
        record = result.record
        num_pairs, seconds = int(record["num_pairs"]), float(record["seconds"])
        per_pair = result.num_described / max(num_pairs, 1)
        run.log_metrics(
            {
                f"{name}/num_pairs": num_pairs,
                f"{name}/num_failed": record["num_failed"],
                f"{name}/pairs_per_second": num_pairs / max(seconds, 1e-9),
                f"{name}/described_per_pair": per_pair,
            }
        )
        run.set_tags({f"dataset {name}": pairs.digest})
        for title, picture in correspondence_pictures(result, pairs):
            run.log_picture(picture, f"pictures/{name}/{title}.png")
        self._say(
            f"match     {name}: {num_pairs} pairs in {seconds:.0f} s, {per_pair:.3f} images "
            f"described per pair, in {self.folder / 'match' / name}"
        )
        self._say(f"          {reading_line(self.folder / 'match' / name)}")
        for what, reason in (("num_rejected", "first_rejection"), ("num_failed", "first_failure")):
            if record[what]:
                self.outcome.num_rejected += record[what]
                self.outcome.first_rejection = self.outcome.first_rejection or str(record[reason])

    def dry_run(self) -> list[str]:
        """What matching the collections would come to; nothing is written."""
        config = self.workflow.match
        if config is None or not config.collections:
            raise InputError(f"--dry-run: workflow {self.workflow.name} has no match stage with collections")
        model = self._model(config.model, "match.model")
        lines = []
        for name in config.collections:
            with self._collection(config, name, model) as collection:
                lines += [f"{name}:", *estimate_run(config, collection, model)]
        return lines

    # -- what stages need --

    def _open(self, name: str) -> ShardSet:
        return open_shard_set(self.folder / "shard", name)

    def _collection(
        self, config: MatchConfig, name: str, model: ModelSource, scratch: Path | None = None
    ) -> AbstractContextManager[Collection]:
        return open_collection(
            name,
            config.collections[name],
            model.bytes_per_image(config.features),
            scratch,
            max_pairs_before=StageOutput(self.folder / "match" / name).planned("max_pairs"),
            keep_together=config.intermediates > 0,
        )

    def _model(self, choice: str | Mapping[str, Any], place: str) -> ModelSource:
        if not isinstance(choice, str):
            return ModelSource(config=method_model(self.workflow, choice, f"{self.workflow.name}.{place}"))
        if choice == "trained":
            return ModelSource(checkpoint=str(self._trained_checkpoint()))
        if choice == "searched":
            return ModelSource(config=searched_model(self.folder / "search"))
        if choice.startswith("models:/"):
            found = fetch_version(self.tracker, choice, self.folder / "models")
            return ModelSource(checkpoint=str(found.checkpoint), version=found.uri)
        load_network(choice)  # a bad checkpoint is said here, not by every actor
        return ModelSource(checkpoint=choice)

    def _trained_checkpoint(self) -> Path:
        output = StageOutput(self.folder / "train")
        if output.manifest() is None:
            raise InputError(f"model 'trained': no complete training in {output.root}; run the train stage first")
        return output.path(output.committed()["model"], "best.safetensors")

    def _model_card(self, config: TrainConfig, sets: Sequence[ShardSet], metrics: Mapping[str, float]) -> ModelCard:
        assert self.workflow.shard is not None
        kinds = {name: source.kind for name, source in self.workflow.shard.sources.items()}
        data = [TrainingData(s.name, kinds[s.name.split("/")[0]], s.num_pairs, s.digest) for s in sets]
        return ModelCard(self.workflow.model, dataclasses.asdict(config), data, metrics)

    def _num_layers(self, model: ModelSource) -> int:
        config = model.config or load_network(str(model.checkpoint)).config
        return len(load_backbone(config.backbone, config.weights))

    def _model_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.workflow.model)

    def _say(self, line: str) -> None:
        self.outcome.lines.append(line)


def score_table(results: Sequence[MethodScores]) -> list[str]:
    """Lines that compare methods on one shard set."""
    metrics = list(
        dict.fromkeys(m for r in results for m in r.summary if "/" not in m and m not in ("layers", "seconds"))
    )
    width = max(len(r.method) for r in results)
    lines = [f"evaluate  {results[0].on}: {' | '.join(metrics) or 'no ground truth'} | layers | s/pair"]
    for result in results:
        values = [f"{100 * result.summary[m]:5.1f}" if m in result.summary else "    -" for m in metrics]
        tail = [f"{result.summary.get('layers', 0):5.1f}", f"{result.summary.get('seconds', 0):.3f}"]
        lines.append(f"          {result.method:<{width}}  {' | '.join([*values, *tail])}")
    return lines


def stage_states(workflow: Workflow, folder: Path) -> list[tuple[str, str]]:
    """(output, state) of everything that a run would make; looks at files only."""
    parts: list[tuple[str, Path]] = []
    for name, source in (workflow.shard.sources if workflow.shard else {}).items():
        parts += [(f"shard {name}/{split}", folder / "shard" / name / split) for split in source.splits]
    if workflow.search is not None:
        parts.append((f"search on {workflow.search.on}", folder / "search"))
    if workflow.train is not None:
        parts.append((f"train on {', '.join(workflow.train.train_sets)}", folder / "train"))
    if workflow.evaluate is not None:
        for on in workflow.evaluate.on:
            for method in workflow.evaluate.methods:
                parts.append((f"evaluate {method} on {on}", folder / "evaluate" / on / method / "predictions"))
    if workflow.match is not None:
        names = (*workflow.match.on, *workflow.match.collections)
        parts += [(f"match {name}", folder / "match" / name) for name in names]
    return [(title, _state(StageOutput(path))) for title, path in parts]


def _state(output: StageOutput) -> str:
    if output.manifest() is not None:
        return "complete"
    if not output.has_plan():
        return "to do"
    return f"begun, {len(output.missing())} tasks to do"
