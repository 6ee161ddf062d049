"""The rows of docs/accuracy.json: which model is measured with which settings on which benchmark, and in what order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dhpf.config import ModelConfig, ReadoutName, SupervisionConfig
from dhpf.pipelines.config import TrainConfig

SETS = {
    "validation": "pf-pascal/val",
    "pf-willow": "pf-willow/test",
    "pf-pascal-part": "pf-pascal/test",
}
"""Shard sets by the name of what they are measured for."""

SEARCHED = (4, 7, 11, 13, 15, 16)
"""What the search of pf-pascal-lite finds on the validation pairs with the published settings."""

MODELS = {
    "folder": ModelConfig(selection="fixed", layers=(5, 8, 10, 11, 15), exponent=2),
    "untaught": ModelConfig(selection="fixed", layers=(5, 11, 15), projection="none", image_side=400),
    "taught": ModelConfig(selection="fixed", layers=(5, 11, 15), projection="residual", image_side=400),
    "searched": ModelConfig(selection="fixed", layers=SEARCHED, projection="none", image_side=400),
    "dynamic": ModelConfig(projection="none", image_side=400),
}
TRAININGS = {
    "taught": TrainConfig(
        on=("caltech-101/test",),
        validate_on="pf-pascal/val",
        supervision=SupervisionConfig(kind="contrastive", selection_weight=0),
        epochs=2,
        learning_rate=0.3,
    ),
    "dynamic": TrainConfig(
        on="pf-pascal",
        supervision=SupervisionConfig(selection_weight=0.1),
        epochs=2,
        learning_rate=0.02,
        gates_start=SEARCHED,
    ),
}
SEEDS = (0, 1, 2)
PUBLISHED: dict[str, Any] = {}
CHOSEN: dict[str, dict[str, Any]] = {
    "folder": {"readout": "soft"},
    "untaught": {"readout": "soft"},
    "taught": {"readout": "soft"},
    "searched": {"readout": "soft"},
    "dynamic": {"readout": "soft"},
}
"""The settings of each model that win on the validation rows; what is learned is learned with these."""

SPARSE: dict[str, Any] = {"joint_side": 30}
"""What joint matching has besides."""

SETTINGS: list[dict[str, Any]] = [
    {},
    {"readout": "soft"},
    {"votes": "foreground"},
    {"features": "signed-sqrt"},
    {"features": "signed-sqrt", "votes": "foreground", "readout": "soft"},
    {"votes": "foreground", "readout": "soft"},
    {"features": "signed-sqrt", "readout": "soft"},
    {"features": "signed-sqrt", "votes": "foreground"},
]
"""Every combination of the settings beside the published ones."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        benchmark: a name in SETS.
        model: a name in MODELS.
        is_joint: whether pairs are matched jointly.
        settings: of the model, beside the published ones; what was learned was learned with CHOSEN.
        seed: of what is learned.
    """

    benchmark: str
    model: str
    is_joint: bool
    settings: dict[str, Any]
    seed: int | None = None

    @property
    def method(self) -> str:
        """As docs/accuracy.json names it."""
        is_either = self.model in ("untaught", "taught")
        return f"{'jointly' if self.is_joint else 'alone'}-{self.model}" if is_either else self.model

    @property
    def name(self) -> str:
        """What no other row is called."""
        settings = " ".join(f"{name}={value}" for name, value in sorted(self.settings.items())) or "as published"
        learned = "" if self.seed is None else f" | seed {self.seed}"
        return f"{self.benchmark} | {self.method} | {settings}{learned}"

    def read_out(self, readout: ReadoutName) -> Row:
        """The same row with another way to read points out."""
        settings = {k: v for k, v in self.settings.items() if k != "readout"}
        return dataclasses.replace(self, settings=settings if readout == "cell" else settings | {"readout": readout})


def rows() -> Iterator[Row]:
    """All rows, those that settings are chosen by first."""
    for settings in SETTINGS:
        yield Row("validation", "untaught", False, settings)
    for settings in SETTINGS:
        yield Row("validation", "untaught", True, SPARSE | settings)
    for model, settings in itertools.product(("searched", "folder"), SETTINGS):
        yield Row("validation", model, False, settings)
    benchmarks = [name for name in SETS if name != "validation"]
    for benchmark in benchmarks:
        yield Row(benchmark, "untaught", True, SPARSE | CHOSEN["untaught"])
        yield Row(benchmark, "untaught", False, CHOSEN["untaught"])
        yield Row(benchmark, "searched", False, CHOSEN["searched"])
    for seed, benchmark in itertools.product(SEEDS, benchmarks):
        yield Row(benchmark, "taught", True, SPARSE | CHOSEN["taught"], seed)
        yield Row(benchmark, "taught", False, CHOSEN["taught"], seed)
        yield Row(benchmark, "dynamic", False, CHOSEN["dynamic"], seed)
    for settings, benchmark in itertools.product(SETTINGS, benchmarks):
        yield Row(benchmark, "untaught", False, settings)
        yield Row(benchmark, "untaught", True, SPARSE | settings)
        yield Row(benchmark, "taught", False, settings, SEEDS[0])
        yield Row(benchmark, "taught", True, SPARSE | settings, SEEDS[0])
    for benchmark in benchmarks:
        yield Row(benchmark, "searched", False, PUBLISHED)
    for benchmark in SETS:
        yield Row(benchmark, "untaught", True, PUBLISHED)
