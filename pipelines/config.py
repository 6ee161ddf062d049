"""What a workflow is: one frozen dataclass per stage, filled strictly from workflows.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dhpf.config import ModelConfig, SupervisionConfig

StageName = Literal["shard", "train", "evaluate", "match"]
STAGES: tuple[StageName, ...] = ("shard", "train", "evaluate", "match")


@dataclass(frozen=True)
class Resources:
    """What one worker or actor of a stage reserves on the cluster."""

    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class SourceConfig:
    """One pair source of a workflow.

    Attributes:
        kind: a name in dhpf.pairs.PAIR_SOURCES.
        splits: which of its splits are sharded.
        options: the fields of that pair source's dataclass (root, pairing, ...), checked against it.
    """

    kind: str
    splits: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardConfig:
    """Pair sources to shards. A shard set is named SOURCE/SPLIT from here on.

    Attributes:
        sources: by the name that the other stages call them.
        max_pairs, max_images: a shard holds at most this many of each.
    """

    sources: Mapping[str, SourceConfig]
    max_pairs: int = 64
    max_images: int = 64
    resources: Resources = Resources()


@dataclass(frozen=True)
class TrainConfig:
    """Learning gates and projections on the train split of one source; the best epoch by PCK on its val split.

    Attributes:
        on: a source name of the shard stage.
        batch_size: pairs per step, over all workers together.
        learning_rate, momentum: of SGD.
        projection_start: "near-identity" starts at the backbone's own features, "random" as the paper does.
        resources: of one worker.
    """

    on: str
    supervision: SupervisionConfig = SupervisionConfig()
    epochs: int = 5
    batch_size: int = 8
    learning_rate: float = 0.03
    momentum: float = 0.5
    projection_start: Literal["near-identity", "random"] = "random"
    seed: int = 0
    num_workers: int = 2
    max_failures: int = 2
    resources: Resources = Resources()


@dataclass(frozen=True)
class EvaluateConfig:
    """Methods on shard sets with ground truth: predictions first, scores from them.

    Attributes:
        on: shard sets, SOURCE/SPLIT.
        methods: by the name they get in tables: "trained" (the train stage's best), a checkpoint path, a
            models:/ URI, or fields that override the workflow's model.
        alphas: PCK thresholds as a share of the threshold side.
        batch_size: pairs correlated at once.
    """

    on: tuple[str, ...]
    methods: Mapping[str, str | Mapping[str, Any]]
    alphas: tuple[float, ...] = (0.05, 0.1, 0.15)
    batch_size: int = 4
    num_actors: int = 2
    resources: Resources = Resources()


@dataclass(frozen=True)
class MatchConfig:
    """Correspondences of every pair of some shard sets.

    Attributes:
        on: shard sets, SOURCE/SPLIT.
        model: "trained", a checkpoint path, a models:/ URI, or fields that override the workflow's model.
        matches_per_pair: at most this many mutual matches are kept for a pair, the best first.
        flow: also store the target point of every source cell (60 x 60 x 2 values a pair).
    """

    on: tuple[str, ...]
    model: str | Mapping[str, Any] = "trained"
    matches_per_pair: int = 50
    flow: bool = False
    batch_size: int = 4
    num_actors: int = 2
    resources: Resources = Resources()


@dataclass(frozen=True)
class Workflow:
    """One block of workflows.yaml: a model and the stages to run, in the order of STAGES.

    Attributes:
        registered_model: name under which a trained model is registered in MLflow.
    """

    name: str
    summary: str
    model: ModelConfig
    shard: ShardConfig
    train: TrainConfig | None = None
    evaluate: EvaluateConfig | None = None
    match: MatchConfig | None = None
    registered_model: str = "dhpf"
