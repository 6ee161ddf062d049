"""The deviation of an engine, measured on small matrices written by hand and on a real network's."""

import dataclasses

import pytest
import skimage.data
import torch

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.frame import to_square
from dhpf.model.deviation import largest_deviation
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.engine import BestCells, best_cells
from dhpf.model.network import MatcherOutput

WANTED = torch.tensor([[True, True, False]])


def whole() -> MatcherOutput:
    correlation = torch.tensor([[[0.9, 0.1, 0.9], [0.2, 0.8, 0.3], [0.0, 0.0, 0.5]]])
    return MatcherOutput(correlation, torch.ones(1, 1), torch.tensor([[[4.0, 2.0]]]))


def exact() -> BestCells:
    output = whole()
    return best_cells(output.correlation, output.geometric_scores, WANTED)


def test_the_same_answer_deviates_by_nothing() -> None:
    assert largest_deviation(exact(), whole(), WANTED) == 0


def test_of_two_targets_that_are_as_good_either_is_right() -> None:
    assert exact().target[0, 0] == 0
    other = dataclasses.replace(exact(), target=torch.tensor([[2, 1, 2]]))
    assert largest_deviation(other, whole(), WANTED) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"target": torch.tensor([[1, 1, 2]])}, 0.8 / 0.9),
        ({"value": torch.tensor([[0.9, 0.71, 0.5]])}, 0.1),
        ({"column_maximum": torch.tensor([[0.9, 0.8, 0.45]])}, 0.5),
        ({"geometric_scores": torch.tensor([[[4.0, 1.0]]])}, 0.25),
        ({"filtered_target": torch.tensor([[0, 0, 0]])}, 0.87654),
    ],
)
def test_each_kind_of_error_is_seen(change: dict[str, torch.Tensor], error: float) -> None:
    found = dataclasses.replace(exact(), **change)
    assert largest_deviation(found, whole(), WANTED) == pytest.approx(error, abs=1e-4)


def test_a_cell_that_was_not_wanted_may_hold_anything() -> None:
    found = dataclasses.replace(exact(), filtered_target=torch.tensor([[0, 1, 1]]))
    assert largest_deviation(found, whole(), WANTED) == 0


@torch.inference_mode()
def test_a_real_engine_is_within_rounding() -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(8, 11)))
    features = network.describe(torch.stack([to_square(i(), 240) for i in (skimage.data.chelsea, skimage.data.coffee)]))
    wanted = torch.rand(1, 3600, generator=torch.Generator().manual_seed(0)) < 0.05
    found, _ = network.match(features, features, [(0, 1)], wanted, choose_engine())
    output = network.correlate(features[torch.tensor([0])], features[torch.tensor([1])])
    assert 0 <= largest_deviation(found, output, wanted) < 1e-5
