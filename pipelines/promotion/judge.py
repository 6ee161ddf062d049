"""Judges a version: predicts the benchmarks with it and with the champion, and runs every check."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dhpf.errors import InputError
from dhpf.manifest import canonical_json
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.config import EvaluateConfig, PromotionConfig
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.promotion.checks import first_pairs, parity_check, pck_check, seconds_per_pair, speed_check
from dhpf.pipelines.promotion.verdict import Verdict
from dhpf.pipelines.stages.evaluate import MethodScores, evaluate
from dhpf.storage import Location


@dataclass(frozen=True)
class Judge:
    """Judges versions by a workflow's promotion settings.

    Attributes:
        config: the promotion settings.
        engine_config: how predictions are made: batch size, actors, engine, resources.
        shard_sets: the benchmarks by name.
        folder: where predictions are kept, so that judging again does not predict again.
    """

    config: PromotionConfig
    engine_config: EvaluateConfig
    shard_sets: Mapping[str, ShardSet]
    folder: Location

    def judge(self, candidate: ModelSource, champion: ModelSource | None) -> Verdict:
        """Checks a version of the registry against the champion; needs a Ray cluster.

        Raises:
            InputError: a benchmark has no PCK, or a model cannot be used.
        """
        metrics = {on: self._metric(on) for on in self.config.on}
        sources = [candidate] if champion is None else [candidate, champion]
        scores = self._scores(sources)
        checks = [
            pck_check(self.config, metric, scores[0][on], scores[1][on] if champion else None)
            for on, metric in metrics.items()
        ]
        networks = [source.load(self.engine_config.resources) for source in sources]
        blocks = [first_pairs(shards, self.config.checked_pairs) for shards in self.shard_sets.values()]
        engine = choose_engine(self.engine_config.engine, networks[0].backbone.mean.device)
        checks.append(parity_check(networks[0], engine, blocks))
        checks.append(speed_check(self.config, seconds_per_pair(networks, engine, blocks, self.engine_config)))
        return Verdict(candidate.version, champion.version if champion else None, tuple(checks))

    def _scores(self, sources: Sequence[ModelSource]) -> list[dict[str, MethodScores]]:
        """The scores by benchmark, for each model; all are predicted by this code and matched directly."""
        named = {_folder_name(source): source for source in sources}
        methods = {name: source.version for name, source in named.items()}
        config = dataclasses.replace(
            self.engine_config, on=self.config.on, methods=methods, alphas=(self.config.alpha,), intermediates={}
        )
        datasets = {name: shards.digest for name, shards in self.shard_sets.items()}
        fingerprint = _digest({"datasets": datasets, "code": code_version(), "alpha": self.config.alpha})
        results = evaluate(config, self.shard_sets, named, self.folder / fingerprint)
        return [{r.on: r for r in results if r.method == method} for method in named]

    def _metric(self, on: str) -> str:
        thresholds = self.shard_sets[on].thresholds
        if not thresholds:
            raise InputError(f"promotion.on: {on} has no keypoints and so no PCK; name shard sets that have some")
        return f"PCK@{self.config.alpha:g} {thresholds[0]}"


def _folder_name(model: ModelSource) -> str:
    """The folder of a version's predictions. It has the digest in its name, because the registry, once deleted, counts
    versions from 1 again."""
    return f"version-{model.version.rpartition('/')[2]}-{_digest(model.identity())[:8]}"


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()[:16]
