"""Draws the pictures of a training: its first step, a sample of validation pairs, and its curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dhpf.config import FRAME_SIDE
from dhpf.drawing import Picture, contact_sheet, draw_curves, draw_layer_selection, draw_matches, in_words
from dhpf.images import RGB
from dhpf.pipelines.training.learner import CheckedPair
from dhpf.pipelines.training.pair_dataset import PairDataset

NUM_SHOWN_PAIRS = 6
NO_LOSS = ("epoch", "workers", "seconds", "pairs_per_second", "val_pck", "selection_rates")
"""Keys of a history entry that are not loss terms."""

LEAST_PCK_RANGE = 10.0
"""Least range of a validation curve's axis, in percentage points, so that noise does not look like learning."""


def training_pictures(
    history: Sequence[Mapping[str, Any]], metric: str, baselines: Mapping[str, float]
) -> Iterator[tuple[str, Picture]]:
    """Curves of loss, validation PCK and layer selection over the epochs.

    Args:
        history: an entry per epoch.
        metric: the one that epochs are compared by, such as "PCK@0.1 image".
        baselines: named values of that metric in [0, 1], to compare with.
    """
    names = [n for n in history[0] if n not in NO_LOSS]
    losses = {in_words(name): [(entry["epoch"], entry[name]) for entry in history] for name in names}
    yield "loss", draw_curves(losses, "epoch", "mean over pairs", "Training loss and its terms")
    yield (
        "validation-pck",
        draw_curves(
            {"trained": [(entry["epoch"], 100 * entry["val_pck"]) for entry in history]},
            "epoch",
            f"{in_words(metric)}, mean over pairs, %",
            "Validation pairs: the model after each epoch",
            levels={name: 100 * pck for name, pck in baselines.items()},
            least_range=LEAST_PCK_RANGE,
        ),
    )
    rates = np.array([entry["selection_rates"] for entry in history])
    epochs = [f"epoch {entry['epoch']}" for entry in history]
    yield (
        "selection-rates",
        draw_layer_selection(rates, epochs, list(range(rates.shape[1])), "Layers that training pairs use"),
    )


def step_picture(data: PairDataset, step: Sequence[int]) -> RGB:
    """The pairs of one training step with their keypoints, as the network sees them."""
    pictures, captions = [], []
    for number in step[:NUM_SHOWN_PAIRS]:
        keypoints = data.keypoints([number])
        source, target = _squares(data, number)
        points = [np.zeros((0, 2), np.float32)] * 2
        if keypoints is not None:
            points = [p[0].numpy() for p in (keypoints.source, keypoints.target)]
        pictures.append(draw_matches(source, target, points[0], points[1], title=""))
        captions.append(data.record(number).pair_id)
    return contact_sheet(pictures, captions, columns=2)


def checked_picture(data: PairDataset, checked: Sequence[CheckedPair], title: str) -> RGB:
    """Some validation pairs with their transferred and their true keypoints."""
    pictures, captions = [], []
    for pair in checked[:: max(1, len(checked) // NUM_SHOWN_PAIRS)][:NUM_SHOWN_PAIRS]:
        pictures.append(
            draw_matches(
                *_squares(data, pair.number),
                pair.source_points,
                pair.points,
                true_points=pair.true_points,
                valid=pair.valid,
                correct=pair.correct,
                title=title,
            )
        )
        captions.append(f"{data.record(pair.number).pair_id}: PCK {100 * pair.pck:.0f} %")
    return contact_sheet(pictures, captions, columns=2)


def _squares(data: PairDataset, number: int) -> tuple[RGB, RGB]:
    source, target = (
        image.square(FRAME_SIDE).permute(1, 2, 0).numpy() for image in (data.source(number), data.target(number))
    )
    return source, target
