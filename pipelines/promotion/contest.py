"""What `dhpf models` does: versions listed, compared with the champion, promoted, rolled back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dhpf.errors import InputError
from dhpf.pipelines.config import EvaluateConfig, PromotionConfig, Workflow
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import open_shard_set
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.promotion.registry import (
    CHAMPION,
    ROLLED_BACK_TAG,
    Registry,
    VersionFacts,
    now_text,
)
from dhpf.pipelines.promotion.requirements import Judge, Verdict
from dhpf.pipelines.tracking.entries import log_picture_to_run, log_text_to_run
from dhpf.pipelines.tracking.fetching import fetch_version
from dhpf.pipelines.tracking.registering import METRIC_TAGS
from dhpf.pipelines.tracking.tracker import Tracker


class Contest:
    """One version of a workflow's registered model against the champion.

    Args:
        workflow: its promotion settings say what a champion must hold.
        folder: where the workflow's stages write.
        tracker: MLflow, whose registry holds the versions.
        reference: number or alias of the version.

    Attributes:
        name: of the registered model.
        candidate, champion: the two versions; champion None where there is none yet.

    Raises:
        InputError: the workflow has no promotion settings, there is no such version, or a benchmark is not sharded.
    """

    def __init__(self, workflow: Workflow, folder: Path, tracker: Tracker, reference: str) -> None:
        self._config = _promotion_of(workflow)
        self._workflow, self._folder, self._tracker = workflow, folder, tracker
        self._registry = Registry(tracker)
        self.name = workflow.registered_model
        self.candidate = self._registry.find(self.name, reference)
        self.champion = self._registry.champion(self.name)
        self._shard_sets = {on: open_shard_set(folder / "shard", on) for on in self._config.on}

    @property
    def is_decided(self) -> bool:
        """Whether the version is the champion already."""
        return self.champion is not None and self.candidate.version == self.champion.version

    def compare(self) -> Verdict:
        """Judges the version and writes the verdict among its tags; the champion stays. Needs a Ray cluster.

        Raises:
            InputError: a model cannot be fetched or used.
        """
        engine_config = self._workflow.evaluate or EvaluateConfig(on=self._config.on, methods={CHAMPION: {}})
        judge = Judge(self._config, engine_config, self._shard_sets, self._folder / "promotion" / self.name)
        verdict = judge.judge(self._fetched(self.candidate), self._fetched(self.champion) if self.champion else None)
        self._registry.write_verdict(self.name, self.candidate.version, verdict.tags() | self._circumstances())
        self._log(verdict)
        return verdict

    def promote(self) -> Verdict:
        """Judges the version, and makes it champion if it passes.

        Raises:
            InputError: as for `compare`; or another version became champion meanwhile.
        """
        verdict = self.compare()
        if verdict.passed:
            over = self.champion.version if self.champion else None
            self._registry.promote(self.name, self.candidate.version, over)
        return verdict

    def _fetched(self, version: VersionFacts) -> ModelSource:
        found = fetch_version(self._tracker, f"models:/{self.name}/{version.version}", self._folder / "models")
        return ModelSource(checkpoint=str(found.checkpoint), version=found.uri)

    def _circumstances(self) -> dict[str, str]:
        return {
            "when": now_text(),
            "code_version": code_version(),
            "workflow": self._workflow.name,
            "settings": json.dumps(dataclasses.asdict(self._config), sort_keys=True),
        }

    def _log(self, verdict: Verdict) -> None:
        """The verdict as a file and as a picture, with the run that made the version."""
        run_id = self.candidate.run_id
        if not run_id:
            return
        against = self.champion.version if self.champion else "none"
        place = f"promotion/version-{self.candidate.version}-against-{against}"
        content = json.dumps(verdict.tags() | self._circumstances(), indent=1, sort_keys=True)
        log_text_to_run(self._tracker.uri, run_id, content, f"{place}.json")
        picture = verdict.picture()
        if picture is not None:
            log_picture_to_run(self._tracker.uri, run_id, picture, f"{place}.png")


def _promotion_of(workflow: Workflow) -> PromotionConfig:
    if workflow.promotion is None:
        raise InputError(
            f"workflow {workflow.name}: has no promotion settings, which say what a champion must hold; "
            "add `promotion: {on: [SOURCE/SPLIT]}` to it, or name another workflow"
        )
    return workflow.promotion


def list_lines(registry: Registry, name: str | None) -> Iterator[str]:
    """The versions of one registered model, or of all, as tables.

    Raises:
        InputError: no such model.
    """
    names = registry.names() if name is None else [name]
    if not names:
        yield "no registered models yet; a workflow that trains registers one"
    for model in names:
        rows = [_row(version) for version in registry.versions(model)]
        yield model
        yield from _table(["version", "aliases", "registered", "val PCK", "verdict", "against the champion"], rows)


def _row(version: VersionFacts) -> list[str]:
    val_pck = version.tags.get(f"{METRIC_TAGS}val_pck")
    verdict = version.verdict.get("verdict", "not judged")
    if ROLLED_BACK_TAG in version.tags and CHAMPION not in version.aliases:
        verdict += ", rolled back"
    return [
        version.version,
        ", ".join(version.aliases) or "-",
        f"{version.registered:%Y-%m-%d %H:%M}",
        f"{100 * float(val_pck):.1f}" if val_pck else "-",
        verdict,
        _differences(version.verdict),
    ]


def _differences(verdict: Mapping[str, str]) -> str:
    """Each benchmark's difference with its interval, in points, as the verdict found it."""
    suffix = "/difference"
    parts = []
    for name in sorted(verdict):
        if name.startswith("pck ") and name.endswith(suffix):
            check = name.removesuffix(suffix)
            mean, low, high = (100 * float(verdict[f"{check}/{key}"]) for key in ("difference", "low", "high"))
            parts.append(f"{check.removeprefix('pck ')} {mean:+.1f} [{low:+.1f}, {high:+.1f}]")
    return "; ".join(parts) or "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
