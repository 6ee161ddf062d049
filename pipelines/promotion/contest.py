"""Judges one version of a registered model against the champion, and promotes it if it passes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from dhpf.errors import InputError
from dhpf.pipelines.config import EvaluateConfig, PromotionConfig, Workflow
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import open_shard_set
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.promotion.judge import Judge
from dhpf.pipelines.promotion.registry import (
    CHAMPION,
    Registry,
    VersionFacts,
    now_text,
)
from dhpf.pipelines.promotion.verdict import Verdict
from dhpf.pipelines.registered_source import registered_source
from dhpf.pipelines.tracking.entries import log_picture_to_run, log_text_to_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import Location


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

    def __init__(self, workflow: Workflow, folder: Location, tracker: Tracker, reference: str) -> None:
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
        """Judges the version and writes the verdict into its tags; the champion does not change. Needs a Ray cluster.

        Raises:
            InputError: a model cannot be fetched or used.
        """
        engine_config = self._workflow.evaluate or EvaluateConfig(on=self._config.on, methods={CHAMPION: {}})
        judge = Judge(self._config, engine_config, self._shard_sets, self._folder / "promotion" / self.name)
        verdict = judge.judge(self._fetched(self.candidate), self._fetched(self.champion) if self.champion else None)
        facts = verdict.tags() | self._circumstances()
        self._registry.write_verdict(self.name, self.candidate.version, facts)
        self._log(verdict, facts)
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
        uri = f"models:/{self.name}/{version.version}"
        return registered_source(self._tracker, uri, self._folder, self._workflow.model.weights)

    def _circumstances(self) -> dict[str, str]:
        return {
            "when": now_text(),
            "code_version": code_version(),
            "workflow": self._workflow.name,
            "settings": json.dumps(dataclasses.asdict(self._config), sort_keys=True),
        }

    def _log(self, verdict: Verdict, facts: Mapping[str, str]) -> None:
        """The verdict as a file and as a picture, among the artifacts of the run that made the version."""
        run_id = self.candidate.run_id
        if not run_id:
            return
        against = self.champion.version if self.champion else "none"
        place = f"promotion/version-{self.candidate.version}-against-{against}"
        content = json.dumps(facts, indent=1, sort_keys=True)
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
