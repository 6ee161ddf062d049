"""The settings of a workflow: one frozen dataclass per stage, filled strictly from workflows.yaml.

Each class raises InputError for a value that is out of range. A field is a setting that decides the stage's result,
unless it is declared as an INPUT or as HOW_IT_RUNS; see `deciding_settings`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from dhpf.config import ENGINES, BordersName, EngineName, ModelConfig, SupervisionConfig, require_choice
from dhpf.errors import InputError
from dhpf.planning.select import PAIR_SELECTS, PairSelect, WithinFolders
from dhpf.storage.bucket import require_uri

FeatureType = Literal["float32", "float16"]

_ROLE, _AT_DEFAULT, _BY_METHOD = "role", "left out at its default", "by method"

DECIDES_SCORES = MappingProxyType({_ROLE: "decides scores"})
"""Marks a setting that decides how stored predictions are scored, but not the predictions."""

BY_METHOD = MappingProxyType({_ROLE: "decides", _BY_METHOD: True})
"""Marks a setting that names a value for some methods; the plan of a method's predictions holds that method's value."""

INPUT = MappingProxyType({_ROLE: "input"})
"""Marks a field that names what a stage works on: plans hold a digest of that data instead."""

HOW_IT_RUNS = MappingProxyType({_ROLE: "how it runs"})
"""Marks a field that changes the cost of a stage but not its result: it may change while a stage is interrupted."""

NEWER = MappingProxyType({_ROLE: "decides", _AT_DEFAULT: True})
"""Marks a setting that plans leave out while it has its default, so that plans older than the setting stay valid."""


@dataclass(frozen=True)
class OutputPlace:
    """Where a stage puts one of its outputs.

    Attributes:
        folder: path below the stage's folder.
        pairs_of: the shard sets whose pairs it is made from; empty for an output made from a collection.
    """

    folder: str
    pairs_of: tuple[str, ...] = ()


class StageConfig(Protocol):
    """What the config of every stage answers, so that other code need not know the stages one by one."""

    @property
    def shard_sets(self) -> tuple[str, ...]:
        """The shard sets that the stage reads, SOURCE/SPLIT."""

    @property
    def processes(self) -> tuple[int, int]:
        """How many workers or actors it has: the fewest that it begins with, and the most."""

    @property
    def resources(self) -> Resources:
        """What one of its workers or actors reserves."""

    @property
    def outputs(self) -> Mapping[str, OutputPlace]:
        """The place of each of its outputs, by the output's title."""


def deciding_settings(config: Any) -> dict[str, Any]:
    """The settings, without inputs, that decide a stage's result, as plain values: a plan holds these."""
    return _settings(config, ("decides", "decides scores"))


def deciding_settings_of_method(config: EvaluateConfig, method: str) -> dict[str, Any]:
    """The settings that decide the predictions of one method: what their plan holds.

    A setting BY_METHOD that is 0 for this method is left out, as by plans that are older than the setting.
    """
    found = _settings(config, ("decides",))
    for declared in dataclasses.fields(config):
        if declared.metadata.get(_BY_METHOD):
            value = found.pop(declared.name).get(method, 0)
            found |= {declared.name: value} if value else {}
    return found


def deciding_settings_of_scores(config: EvaluateConfig) -> dict[str, Any]:
    """The settings that decide the scores of stored predictions: what the plan of the scores holds."""
    return _settings(config, ("decides scores",))


def deciding_settings_and_inputs(config: Any) -> dict[str, Any]:
    """`deciding_settings` together with the names of the inputs: what tells runs of a stage apart in MLflow."""
    return _settings(config, ("decides", "decides scores", "input"))


def _settings(config: Any, roles: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for declared in dataclasses.fields(config):
        value = getattr(config, declared.name)
        if isinstance(value, tuple(PAIR_SELECTS.values())):
            found |= _choice_of_pairs(value, roles)
        elif declared.metadata.get(_ROLE, "decides") in roles and not _is_left_out(declared, value):
            found[declared.name] = _plain(value, roles)
    return found


def _choice_of_pairs(select: Any, roles: tuple[str, ...]) -> dict[str, Any]:
    """The name of a `select` and its options side by side, as in workflows.yaml.

    `reference` and `reach` are always there, used or not, because every earlier plan has them.
    """
    chosen = dataclasses.asdict(select)
    if "input" not in roles:
        chosen.pop("pair_list", None)  # a list is an input
    return {"select": chosen.pop("name"), "reference": None, "reach": None} | chosen


def _is_left_out(declared: dataclasses.Field[Any], value: object) -> bool:
    return declared.metadata.get(_AT_DEFAULT, False) and value == declared.default


def _plain(value: Any, roles: tuple[str, ...]) -> Any:
    if dataclasses.is_dataclass(value):
        return _settings(value, roles)
    if isinstance(value, Mapping):
        return {key: _plain(item, roles) for key, item in value.items()}
    return value


def _require(name: str, value: object, is_valid: bool, wanted: str) -> None:
    if not is_valid:
        raise InputError(f"{name}: {value} must be {wanted}")


def _require_distinct(name: str, values: Collection[object]) -> None:
    if not values or len(set(values)) < len(values):
        raise InputError(f"{name}: {list(values)} must be one or more different values")


def require_name(what: str, value: str) -> None:
    """Raises InputError unless `value` can name a folder, a metric, and a part of `stage.key`."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", value):
        raise InputError(f"{what}: {value!r} must consist of letters, digits, '-' and '_', and not begin with '-'")


def _require_names(what: str, values: Collection[str]) -> None:
    if not values:
        raise InputError(f"{what}: must name at least one")
    for value in values:
        require_name(what, value)


STUCK_AFTER = 600.0
"""Seconds that any block may take, if nothing else is said: most are planned to take a minute or a few."""


def _require_stuck_after(value: float) -> None:
    _require("stuck_after", value, 0 < value < math.inf, "above 0")


@dataclass(frozen=True)
class Resources:
    """What one worker or actor of a stage reserves on the cluster.

    Attributes:
        cpus: CPU cores, 1 if not given; also the number of threads that torch uses there.
        gpus: GPUs, 0 if not given; a fraction shares a GPU with others.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        _require("cpus", self.cpus, 0 < self.cpus < math.inf, "above 0")
        _require("gpus", self.gpus, 0 <= self.gpus < math.inf, "0 or more")


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """How the stages run that match pairs. None of it decides their results.

    Attributes:
        batch_size: pairs matched at once; None takes what suits the device, 4 on a CPU and 64 on a GPU.
        num_actors, min_actors: processes that match. With min_actors their number varies between the two, as the work
            needs them and the cluster has room.
        engine: which implementation matches; "auto" takes the fastest for the device.
        resources: what one actor reserves.
        stuck_after: seconds after which a block that also takes 20 times as long as most blocks is stuck: its actor is
            ended, and the block tried image by image. There an image or pair is left out that takes half as long.
        max_failed_share: of the pairs that a run has tried, once these are 200, so many may have failed; with more the
            run stops. What others ended from outside does not count. 1 for no limit.
    """

    batch_size: int | None = field(default=None, metadata=HOW_IT_RUNS)
    num_actors: int = field(default=2, metadata=HOW_IT_RUNS)
    min_actors: int | None = field(default=None, metadata=HOW_IT_RUNS)
    engine: EngineName = field(default="auto", metadata=HOW_IT_RUNS)
    resources: Resources = field(default=Resources(), metadata=HOW_IT_RUNS)
    stuck_after: float = field(default=STUCK_AFTER, metadata=HOW_IT_RUNS)
    max_failed_share: float = field(default=0.5, metadata=HOW_IT_RUNS)

    def __post_init__(self) -> None:
        _require_stuck_after(self.stuck_after)
        _require("max_failed_share", self.max_failed_share, 0 <= self.max_failed_share <= 1, "in 0 .. 1")
        _require("batch_size", self.batch_size, self.batch_size is None or self.batch_size >= 1, "at least 1")
        _require("num_actors", self.num_actors, self.num_actors >= 1, "at least 1")
        least = self.num_actors if self.min_actors is None else self.min_actors
        _require("min_actors", self.min_actors, 1 <= least <= self.num_actors, f"in 1 .. {self.num_actors}")
        require_choice("engine", self.engine, ENGINES)

    @property
    def processes(self) -> tuple[int, int]:
        return self.num_actors if self.min_actors is None else self.min_actors, self.num_actors


@dataclass(frozen=True)
class SourceConfig:
    """One pair source of a workflow.

    Attributes:
        kind: a name in dhpf.pairs.PAIR_SOURCES.
        splits: which of the source's splits are sharded.
        options: the fields of that pair source's dataclass (root, select, ...), checked against it.
    """

    kind: str
    splits: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_distinct("splits", self.splits)


@dataclass(frozen=True)
class ShardConfig:
    """The shard stage: turns pair sources into shards. A shard set is named SOURCE/SPLIT in all other stages.

    Attributes:
        sources: pair sources, by the names that other stages call them.
        max_pairs, max_images: a shard holds at most this many of each.
        store: s3:// URI below which the tar files are put; without it they lie in the work folder, as the index files
            always do.
        resources: what one actor that writes shards reserves.
        stuck_after: seconds after which a shard that also takes 20 times as long as most is stuck; see MatchingConfig.
    """

    sources: Mapping[str, SourceConfig] = field(metadata=INPUT)
    max_pairs: int = 64
    max_images: int = 64
    store: str | None = None
    resources: Resources = field(default=Resources(), metadata=HOW_IT_RUNS)
    stuck_after: float = field(default=STUCK_AFTER, metadata=HOW_IT_RUNS)

    def __post_init__(self) -> None:
        _require_stuck_after(self.stuck_after)
        if self.store is not None:
            require_uri(self.store, "shard.store")
        _require_names("sources", self.sources)
        _require("max_pairs", self.max_pairs, self.max_pairs >= 1, "at least 1")
        _require("max_images", self.max_images, self.max_images >= 2, "at least 2, the images of one pair")

    @property
    def shard_sets(self) -> tuple[str, ...]:
        return ()

    @property
    def given_sets(self) -> tuple[str, ...]:
        """The shard sets that the stage makes, SOURCE/SPLIT."""
        return tuple(f"{name}/{split}" for name, source in self.sources.items() for split in source.splits)

    @property
    def processes(self) -> tuple[int, int]:
        return 1, 1

    @property
    def outputs(self) -> Mapping[str, OutputPlace]:
        return {name: OutputPlace(name, (name,)) for name in self.given_sets}


@dataclass(frozen=True)
class SearchConfig:
    """The search stage: finds the set of layers with the highest PCK, by beam search as in Hyperpixel Flow (ICCV 2019).

    Attributes:
        on: a shard set with keypoints, SOURCE/SPLIT.
        model: fields that override the workflow's model, such as the exponent that the sets are scored with (3 by
            default, as for any fixed selection); not `selection` or `layers`, because the layers are searched for.
        beam: this many of the best sets of a size are extended by one layer.
        max_layers: largest size of a set; the search ends earlier when larger sets are no better.
        max_pairs: sets are scored on at most this many pairs, evenly spread over the shard set; None takes all.
        alpha: PCK threshold as a share of the shard set's main threshold side.
        feature_memory_mb: memory in MB that an actor gives to the features of its images. If they fit, each image is
            described once, otherwise once for each size of set.
        num_actors: processes that score sets, each on its share of the pairs.
        engine: which implementation matches; "auto" takes the fastest for the device.
        resources: what one actor reserves.
    """

    on: str = field(metadata=INPUT)
    model: Mapping[str, Any] = field(default_factory=dict, metadata=INPUT)
    beam: int = 4
    max_layers: int = 8
    max_pairs: int | None = None
    alpha: float = 0.1
    feature_memory_mb: int = field(default=1000, metadata=HOW_IT_RUNS)
    num_actors: int = field(default=2, metadata=HOW_IT_RUNS)
    engine: EngineName = field(default="auto", metadata=HOW_IT_RUNS)
    resources: Resources = field(default=Resources(), metadata=HOW_IT_RUNS)

    def __post_init__(self) -> None:
        found = [name for name in ("selection", "layers") if name in self.model]
        _require("model", found, not found, "left out: a search finds the layers of a fixed selection")
        for name in ("beam", "max_layers", "feature_memory_mb", "num_actors"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        if self.max_pairs is not None:
            _require("max_pairs", self.max_pairs, self.max_pairs >= 1, "at least 1")
        _require("alpha", self.alpha, 0 < self.alpha <= 1, "in (0, 1]")
        require_choice("engine", self.engine, ENGINES)

    @property
    def shard_sets(self) -> tuple[str, ...]:
        return (self.on,)

    @property
    def processes(self) -> tuple[int, int]:
        return self.num_actors, self.num_actors

    @property
    def outputs(self) -> Mapping[str, OutputPlace]:
        return {f"on {self.on}": OutputPlace(".", (self.on,))}


@dataclass(frozen=True)
class TrainConfig:
    """The train stage: learns gates and projections, and keeps the epoch with the best PCK on validation pairs.

    Attributes:
        on: a source of the shard stage: its train split is learned from, its val split validates. Or a list of shard
            sets, SOURCE/SPLIT, that are learned from together; `validate_on` then names the set that validates.
        validate_on: the shard set that validates, SOURCE/SPLIT; None for the val split of the source `on`.
        supervision: what the model learns from.
        epochs: how often every pair is learned from.
        batch_size: pairs per step, over all workers together.
        learning_rate, momentum: of SGD.
        projection_start: "near-identity" starts close to the backbone's own features, "random" as the paper does.
        gates_start: layers whose gates start open for nearly every pair, while all others start closed; "searched"
            takes the layers that the search stage found; "random" starts as the paper does.
        seed: of the order of the pairs, of the gates' noise, and of the weights at the start.
        num_workers: processes that share the pairs of each step; the model learned is the same for any number.
        min_workers: makes training elastic: it goes on with as few workers as this while others are lost.
        max_failures: how often training starts again from its last checkpoint after workers fail.
        checkpoint_steps: steps between checkpoints within an epoch, and so the most steps that a failure can cost.
        kept_maps_mb: disk space in MB on each machine for the frozen backbone's feature maps, so that they are computed
            once and not in every epoch; maps that do not fit are computed again. 0 keeps none.
        precision: of the frozen backbone in training; "bfloat16" halves the size of its maps. All that is learned, and
            all matching with the trained model, stays in float32.
        resources: what one worker reserves.
    """

    on: str | tuple[str, ...]
    validate_on: str | None = None
    supervision: SupervisionConfig = SupervisionConfig()
    epochs: int = 5
    batch_size: int = 8
    learning_rate: float = 0.03
    momentum: float = 0.5
    projection_start: Literal["near-identity", "random"] = "random"
    gates_start: str | tuple[int, ...] = "random"
    seed: int = 0
    num_workers: int = field(default=2, metadata=HOW_IT_RUNS)
    min_workers: int | None = field(default=None, metadata=HOW_IT_RUNS)
    max_failures: int = field(default=2, metadata=HOW_IT_RUNS)
    checkpoint_steps: int = field(default=50, metadata=HOW_IT_RUNS)
    kept_maps_mb: int = field(default=8000, metadata=HOW_IT_RUNS)
    precision: Literal["float32", "bfloat16"] = "float32"
    resources: Resources = field(default=Resources(), metadata=HOW_IT_RUNS)

    def __post_init__(self) -> None:
        if isinstance(self.gates_start, str):
            require_choice("train.gates_start", self.gates_start, ("random", "searched"))
        if not isinstance(self.on, str):
            _require_distinct("on", self.on)
            if self.validate_on is None:
                raise InputError(
                    "validate_on: is missing; name the shard set that validates what is learned on several"
                )
        _require("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _require("num_workers", self.num_workers, self.num_workers >= 1, "at least 1")
        _require("batch_size", self.batch_size, self.batch_size >= 2, "at least 2: one pair cannot be normalised")
        least = self.num_workers if self.min_workers is None else self.min_workers
        _require("min_workers", self.min_workers, 1 <= least <= self.num_workers, f"in 1 .. {self.num_workers}")
        _require("checkpoint_steps", self.checkpoint_steps, self.checkpoint_steps >= 1, "at least 1")
        _require("kept_maps_mb", self.kept_maps_mb, self.kept_maps_mb >= 0, "0 or more")
        _require("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "above 0")
        _require("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        _require("seed", self.seed, 0 <= self.seed < 2**31, "in [0, 2**31)")
        _require("max_failures", self.max_failures, self.max_failures >= 0, "0 or more")

    @property
    def train_sets(self) -> tuple[str, ...]:
        """The shard sets that are learned from, SOURCE/SPLIT."""
        return (f"{self.on}/train",) if isinstance(self.on, str) else self.on

    @property
    def validation_set(self) -> str:
        """The shard set that validates, SOURCE/SPLIT."""
        return self.validate_on or f"{self.on}/val"

    @property
    def shard_sets(self) -> tuple[str, ...]:
        return (*self.train_sets, self.validation_set)

    @property
    def processes(self) -> tuple[int, int]:
        return self.num_workers if self.min_workers is None else self.min_workers, self.num_workers

    @property
    def outputs(self) -> Mapping[str, OutputPlace]:
        return {f"on {', '.join(self.train_sets)}": OutputPlace(".", self.train_sets)}


@dataclass(frozen=True)
class EvaluateConfig(MatchingConfig):
    """The evaluate stage: predicts with each method on shard sets with ground truth, and scores the predictions.

    Attributes:
        on: shard sets, SOURCE/SPLIT.
        methods: models, by the name they get in tables: "trained" (the train stage's best epoch), "searched" (the
            layers of the search stage), a checkpoint's path, a models:/ URI, or fields that override the workflow's
            model.
        alphas: PCK thresholds as a share of the threshold side.
        intermediates: for each method named here, a pair is also matched through at most this many other images of its
            block and category; all other methods match each pair directly.
    """

    on: tuple[str, ...] = field(metadata=INPUT)
    methods: Mapping[str, str | Mapping[str, Any]] = field(metadata=INPUT)
    alphas: tuple[float, ...] = field(default=(0.05, 0.1, 0.15), metadata=DECIDES_SCORES)
    intermediates: Mapping[str, int] = field(default_factory=dict, metadata=BY_METHOD)

    def __post_init__(self) -> None:
        _require_distinct("on", self.on)
        _require_names("methods", self.methods)
        _require_distinct("alphas", self.alphas)
        for alpha in self.alphas:
            _require("alphas", alpha, 0 < alpha <= 1, "in (0, 1]")
        for method, limit in self.intermediates.items():
            require_choice("intermediates", method, self.methods)
            _require(f"intermediates.{method}", limit, limit >= 0, "0 or more")
        super().__post_init__()

    @property
    def shard_sets(self) -> tuple[str, ...]:
        return self.on

    @property
    def outputs(self) -> Mapping[str, OutputPlace]:
        return {
            f"{method} on {on}": OutputPlace(f"{on}/{method}/predictions", (on,))
            for on in self.on
            for method in self.methods
        }


@dataclass(frozen=True)
class CollectionConfig:
    """A folder of images that is matched where it lies, without being sharded first.

    Attributes:
        root: the folder, relative to the data folder.
        select: which pairs to match. In workflows.yaml, a name of dhpf.planning.select.PAIR_SELECTS, with its options
            beside it, as in `select: neighbours` and `reach: 3`; the path `pair_list` is relative to the data folder.
        feature_memory_mb: memory in MB that an actor gives to the features of a block's images; more memory means fewer
            blocks, and fewer images that several blocks read.
        max_pairs: a block holds at most this many pairs, and so no more are lost when an actor dies. None takes a
            number that suits the collection (dhpf.planning.blocks), or the one that an output begun before was
            planned with.
    """

    root: str = field(metadata=INPUT)
    select: PairSelect = WithinFolders()
    feature_memory_mb: int = field(default=1000, metadata=HOW_IT_RUNS)
    max_pairs: int | None = None

    def __post_init__(self) -> None:
        _require("feature_memory_mb", self.feature_memory_mb, self.feature_memory_mb >= 1, "at least 1")
        _require("max_pairs", self.max_pairs, self.max_pairs is None or self.max_pairs >= 1, "at least 1")


@dataclass(frozen=True)
class MatchConfig(MatchingConfig):
    """The match stage: finds correspondences for every pair of shard sets and collections.

    Attributes:
        on: shard sets, SOURCE/SPLIT.
        collections: folders of images that are matched without sharding, by the names their outputs get.
        model: "trained", "searched", a checkpoint's path, a models:/ URI, or fields that override the workflow's model.
        matches_per_pair: at most this many mutual matches of a pair are kept, the most confident first.
        flow: also store the target point of every source cell (60 x 60 x 2 values a pair).
        intermediates: each pair is also matched through at most this many other images of its block and category; 0
            matches each pair directly.
        price_per_hour: price of one actor, in any currency, for the estimate of `dhpf run --dry-run`.
        features: type in which a block's features are kept; "float16" fits twice as many images into the same memory.
        borders: "left-out" matches nothing on an image's plain border, such as a frame or a letterbox.
    """

    on: tuple[str, ...] = field(default=(), metadata=INPUT)
    collections: Mapping[str, CollectionConfig] = field(default_factory=dict, metadata=INPUT)
    model: str | Mapping[str, Any] = field(default="trained", metadata=INPUT)
    matches_per_pair: int = 50
    flow: bool = False
    intermediates: int = field(default=0, metadata=NEWER)
    price_per_hour: float = field(default=0.0, metadata=HOW_IT_RUNS)
    features: FeatureType = "float32"
    borders: BordersName = field(default="kept", metadata=NEWER)

    def __post_init__(self) -> None:
        if self.on:
            _require_distinct("on", self.on)
        if self.collections:
            _require_names("collections", self.collections)
        if not self.on and not self.collections:
            raise InputError("on: nothing to match; name shard sets, or collections")
        _require("price_per_hour", self.price_per_hour, 0 <= self.price_per_hour < math.inf, "0 or more")
        _require("matches_per_pair", self.matches_per_pair, self.matches_per_pair >= 1, "at least 1")
        _require("intermediates", self.intermediates, self.intermediates >= 0, "0 or more")
        super().__post_init__()

    @property
    def shard_sets(self) -> tuple[str, ...]:
        return self.on

    @property
    def outputs(self) -> Mapping[str, OutputPlace]:
        of_sets = {on: OutputPlace(on, (on,)) for on in self.on}
        return of_sets | {name: OutputPlace(name) for name in self.collections}


@dataclass(frozen=True)
class PromotionConfig:
    """The checks that a version of the workflow's registered model must pass to become its champion.

    Attributes:
        on: shard sets with keypoints, SOURCE/SPLIT: the benchmarks.
        alpha: PCK threshold as a share of the benchmark's main threshold side.
        confidence: of the bootstrap interval of the difference from the champion's PCK; a version is refused when the
            whole interval lies below zero.
        resamples, seed: of the bootstrap.
        least_pck: PCK in [0, 1] that any version, the first one too, must reach on every benchmark.
        max_slowdown: a version's seconds per pair may be at most this many times the champion's.
        checked_pairs: this many pairs of each benchmark are used to check parity and speed.
    """

    on: tuple[str, ...]
    alpha: float = 0.1
    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0
    least_pck: float = 0.0
    max_slowdown: float = 1.25
    checked_pairs: int = 8

    def __post_init__(self) -> None:
        _require_distinct("on", self.on)
        _require("alpha", self.alpha, 0 < self.alpha <= 1, "in (0, 1]")
        _require("confidence", self.confidence, 0 < self.confidence < 1, "in (0, 1)")
        _require("resamples", self.resamples, self.resamples >= 100, "at least 100")
        _require("seed", self.seed, 0 <= self.seed < 2**31, "in [0, 2**31)")
        _require("least_pck", self.least_pck, 0 <= self.least_pck <= 1, "in [0, 1]")
        _require("max_slowdown", self.max_slowdown, 0 < self.max_slowdown < math.inf, "above 0")
        _require("checked_pairs", self.checked_pairs, self.checked_pairs >= 1, "at least 1")


_STAGE = MappingProxyType({"stage": True})


@dataclass(frozen=True)
class Workflow:
    """One block of workflows.yaml: a model and its stages, which run in the order of the fields.

    Attributes:
        name: the one that the workflow stands under.
        summary: one line that `dhpf list` shows.
        model: the network that is trained, and whose fields the models of other stages override.
        shard: the stage that turns pair sources into shards.
        search: the stage that finds a fixed set of layers without training.
        train: the stage that learns gates and projections.
        evaluate: the stage that predicts with several models and scores the predictions.
        match: the stage that finds correspondences for every pair.
        promotion: the checks of `dhpf models promote`; this is no stage, and `dhpf run` does not use it.
        registered_model: name under which trained models are registered in MLflow.
    """

    name: str
    summary: str
    model: ModelConfig
    shard: ShardConfig | None = field(default=None, metadata=_STAGE)
    search: SearchConfig | None = field(default=None, metadata=_STAGE)
    train: TrainConfig | None = field(default=None, metadata=_STAGE)
    evaluate: EvaluateConfig | None = field(default=None, metadata=_STAGE)
    match: MatchConfig | None = field(default=None, metadata=_STAGE)
    promotion: PromotionConfig | None = None
    registered_model: str = "dhpf"

    def __post_init__(self) -> None:
        require_name("name", self.name)
        require_name("registered_model", self.registered_model)

    @property
    def stages(self) -> dict[str, StageConfig]:
        """The stages that it has, by name, in their order."""
        configs = {name: getattr(self, name) for name in STAGES}
        return {name: config for name, config in configs.items() if config is not None}


STAGES = tuple(declared.name for declared in dataclasses.fields(Workflow) if declared.metadata.get("stage"))
"""The names of all stages, in their order."""
