"""The model card, MODEL_CARD.md: what a user should know of a registered version before using it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dhpf.config import ModelConfig
from dhpf.licences import DATA_LICENCES, weights_licence
from dhpf.pipelines.outputs.code_version import code_version

_INTENDED_USE = """\
Semantic correspondence: which point of one image shows the same part as a point of another, for pairs of photos of
things of the same kind. Answers come with a confidence; a point that no cell covers has no answer."""

_LIMITS = """\
- Tested on no other data than its benchmarks; on other kinds of images, measure first.
- A prediction is as fine as a grid of 60 x 60 cells, and the network sees a square image of {side} pixels.
- Pairs that show different things get matches too; their low confidence is the only sign.
- Not for identifying people, nor for decisions about them."""


@dataclass(frozen=True)
class TrainingData:
    """A shard set that a training read.

    Attributes:
        name: SOURCE/SPLIT.
        kind: of the pair source, which decides the licence.
        num_pairs: in the set.
        digest: sha256 of its content: the fingerprint.
    """

    name: str
    kind: str
    num_pairs: int
    digest: str


@dataclass(frozen=True)
class ModelCard:
    """The facts of a trained model.

    Attributes:
        model: what was built.
        training: settings of the train stage.
        data: what was read, in the order train, val.
        metrics: of the epoch that was kept.
    """

    model: ModelConfig
    training: Mapping[str, Any]
    data: Sequence[TrainingData]
    metrics: Mapping[str, float]

    def text(self) -> str:
        """The card in Markdown."""
        model = self.model
        config = {"model": dataclasses.asdict(model), "train": dict(self.training)}
        data = [f"| {d.name} | {d.kind} | {d.num_pairs} | `{d.digest}` |" for d in self.data]
        terms = list(dict.fromkeys(DATA_LICENCES[d.kind] for d in self.data))
        parts = [
            "# Dynamic Hyperpixel Flow, a trained matcher",
            f"Layer gates and projections learned on a frozen {model.backbone}; the file holds what was learned, the "
            "backbone's weights come from their own publisher.",
            "## Intended use",
            _INTENDED_USE,
            "## Limits",
            _LIMITS.format(side=model.image_side),
            "## Metrics",
            "\n".join(f"- {name}: {value:.4g}" for name, value in self.metrics.items()) or "None.",
            "How it compares with the champion of its time stands in the version's `dhpf.promotion` tags.",
            "## Training data",
            "\n".join(["| set | source | pairs | fingerprint (sha256) |", "| --- | --- | --- | --- |", *data]),
            "## Licences",
            "\n".join(f"- Data: {text}" for text in terms),
            f"- Backbone: {weights_licence(model.backbone, model.weights)}",
            "## Configuration",
            f"Code version `{code_version()}`.",
            f"```json\n{json.dumps(config, indent=1, default=str)}\n```",
        ]
        return "\n\n".join(parts) + "\n"
