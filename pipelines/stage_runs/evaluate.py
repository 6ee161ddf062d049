"""Runs the evaluate stage of a workflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dhpf.config import ModelConfig
from dhpf.model.backbone import load_backbone
from dhpf.pipelines.config import EvaluateConfig
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.pictures import class_picture, comparison_picture, method_pictures
from dhpf.pipelines.progress import doing
from dhpf.pipelines.stage_runs.context import ScoreTable, Stage, StageContext
from dhpf.pipelines.stages.evaluate import MethodScores, evaluate, planned_settings
from dhpf.pipelines.tracking.runs import StageRun

OF_COST = ("layers", "seconds")
"""Entries of a summary that every method has, and that are no scores."""


def _run(config: EvaluateConfig, context: StageContext, run: StageRun) -> None:
    sets = {on: context.shard_set(on) for on in config.on}
    models = {name: context.model(choice, _place(name)) for name, choice in config.methods.items()}
    run.log_datasets([context.dataset(shards, "evaluation") for shards in sets.values()])
    results = evaluate(config, sets, models, context.folder_of("evaluate"), context.retry)
    for result in results:
        metrics = {f"{result.on}/{result.method}/{k}": v for k, v in {**result.summary, **result.counts}.items()}
        run.log_metrics(metrics)
        context.outcome.measure("evaluate", {name: value for name, value in metrics.items() if "/class/" not in name})
        if result.predictions.num_rows:
            num_layers = _num_layers(models[result.method])
            with doing(f"drawing pictures of {result.method} on {result.on}"):
                for name, picture in method_pictures(result, sets[result.on], num_layers):
                    run.log_picture(picture, f"pictures/{result.on}/{result.method}/{name}.png")
    for on in config.on:
        of_set = [r for r in results if r.on == on]
        if any(len(r.summary) > len(OF_COST) for r in of_set):
            comparison = context.outcome.comparisons[on] = comparison_picture(of_set, f"Methods on {on}")
            run.log_picture(comparison, f"pictures/{on}/comparison.png")
            run.log_picture(class_picture(of_set), f"pictures/{on}/comparison-per-class.png")
        _report(context, of_set, on, config)


def _report(context: StageContext, results: Sequence[MethodScores], on: str, config: EvaluateConfig) -> None:
    table = score_table(results)
    has_scores = len(table.columns) > len(OF_COST)
    lines = [f"{on}: " + ("in percent, higher is better" if has_scores else "no ground truth")]
    facts = {"on": on, "methods": {r.method: dict(r.summary) for r in results}}
    lines += [remark for result in results if (remark := result.left_out())]
    context.outcome.report("evaluate", facts, *lines, table=table)
    remark = remark_on_training(results, {name for name, choice in config.methods.items() if choice == "trained"})
    if remark:
        context.outcome.report("evaluate", {}, remark)


def score_table(results: Sequence[MethodScores]) -> ScoreTable:
    """The scores of methods on one shard set, as a table."""
    metrics = _metrics(results)
    rows = {}
    for result in results:
        values = [f"{100 * result.summary[m]:.1f}" if m in result.summary else "-" for m in metrics]
        cost = [f"{result.summary.get('layers', 0):.1f}", f"{result.summary.get('seconds', 0):.3f}"]
        rows[result.method] = [*values, *cost]
    return ScoreTable([*metrics, "layers", "s/pair"], rows)


def remark_on_training(results: Sequence[MethodScores], trained: set[str]) -> str | None:
    """A remark for the case that an untrained method has a higher score than every trained one; None otherwise."""
    metrics = _metrics(results)
    scores = {r.method: r.summary[metrics[0]] for r in results if metrics and metrics[0] in r.summary}
    ours = {method: score for method, score in scores.items() if method in trained}
    others = {method: score for method, score in scores.items() if method not in trained}
    if not ours or not others:
        return None
    best, rival = max(ours, key=ours.__getitem__), max(others, key=others.__getitem__)
    if ours[best] >= others[rival]:
        return None
    return (
        f"{rival!r}, which is not trained, is above the trained {best!r} ({metrics[0]} {100 * others[rival]:.1f} and "
        f"{100 * ours[best]:.1f}): training on few photos or few classes learns which layers suit those; well chosen "
        "layers of the backbone alone often carry further. More varied training pairs narrow this"
    )


def _metrics(results: Sequence[MethodScores]) -> list[str]:
    return list(dict.fromkeys(m for r in results for m in r.summary if "/" not in m and m not in OF_COST))


def _num_layers(model: ModelSource) -> int:
    if model.config is not None:
        return len(load_backbone(model.config.backbone, model.config.weights))
    return len(model.network().backbone)


def _place(method: str) -> str:
    return f"evaluate.methods.{method}"


def _settings(config: EvaluateConfig, context: StageContext) -> Mapping[str, Mapping[str, Any]]:
    return {
        f"{on}/{method}/predictions": planned_settings(config, on, method)
        | context.planned_model(choice, _place(method))
        for on in config.on
        for method, choice in config.methods.items()
    }


def _models(config: EvaluateConfig, context: StageContext) -> Iterable[ModelConfig]:
    return context.untrained_models({_place(name): choice for name, choice in config.methods.items()})


EVALUATE = Stage(run=_run, settings=_settings, models=_models)
