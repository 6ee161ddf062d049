"""Losses of small tensors, compared with values worked out by hand; tests/parity compares with the published ones."""

import math
from typing import get_args

import pytest
import torch

from dhpf.config import SupervisionName
from dhpf.model.transfer import TransferredPoints
from dhpf.supervision import (
    COSINE_SCALE,
    SUPERVISIONS,
    KeypointBatch,
    contrastive_loss,
    keypoint_weights,
    negative_pairs,
    selection_rate_loss,
    strong_loss,
    weak_loss,
)


def test_every_name_that_a_config_may_give_has_its_kind() -> None:
    assert SUPERVISIONS.keys() == set(get_args(SupervisionName))


def test_right_keypoints_weigh_less() -> None:
    target = torch.zeros(1, 4, 2)
    moved = torch.tensor([[[12.0, 0.0], [24.0, 0.0], [25.0, 0.0], [1.0, 0.0]]])
    valid = torch.tensor([[True, True, True, False]])
    keypoints = KeypointBatch(target, target, torch.ones(1, 4, dtype=torch.bool), torch.tensor([240.0]))
    weights = keypoint_weights(TransferredPoints(moved, valid, moved[..., 0]), keypoints, 0.1)
    assert weights.tolist() == [[0.25, 1.0, 1.0, 1.0]]  # a point without prediction is wrong, however near 0 lies


def test_strong_loss_of_rows_without_preference() -> None:
    rows = torch.full((1, 2, 8), 0.3)
    valid = torch.tensor([[True, False]])
    loss = strong_loss(rows, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2), valid)
    assert loss.item() == pytest.approx(math.log(8))


def test_strong_loss_falls_as_the_true_target_rises() -> None:
    low, high = torch.rand(1, 1, 3600), torch.rand(1, 1, 3600)
    high[0, 0, 5] = 10.0
    target = torch.tensor([[5]])
    one, yes = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    assert (strong_loss(high, target, one, yes) < strong_loss(low, target, one, yes)).all()


def test_standard_deviation_carries_no_gradient() -> None:
    rows = torch.rand(1, 1, 10, requires_grad=True)
    strong_loss(rows, torch.tensor([[3]]), torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)).backward()
    values = rows.detach()[0, 0]
    share = ((values - values.mean()) / values.std()).softmax(0)
    expected = (share - torch.eye(10)[3]) / values.std()
    assert rows.grad is not None
    assert torch.allclose(rows.grad[0, 0], expected - expected.mean(), atol=1e-5)


def test_negatives_are_rolled_and_of_another_category() -> None:
    assert negative_pairs(["cat", "dog", "dog", "cat"]) == [(0, 1), (2, 3)]
    assert negative_pairs(["cat", "cat"]) == []
    assert negative_pairs(["cat"]) == []


def test_weak_loss_without_negatives() -> None:
    assert weak_loss(torch.tensor([6.0, 0.0]), torch.tensor([2.0, 0.0])).item() == 3.0
    assert weak_loss(torch.tensor([6.0, 6.0]), torch.tensor([2.0, 1.0])).item() == 0.5


def test_selection_rate() -> None:
    assert selection_rate_loss(torch.tensor([1.0, 0.5]), 0.5).item() == pytest.approx(0.25)


def test_contrastive_loss_of_rows_without_preference() -> None:
    points = torch.tensor([[[100.0, 60.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    valid = torch.tensor([[True, False], [False, False]])
    loss = contrastive_loss(torch.full((2, 2, 3600), 0.4), points, valid)
    assert loss.tolist() == pytest.approx([math.log(3600), 0.0])  # a pair without points teaches nothing


def test_contrastive_loss_is_least_where_likeness_follows_the_gaussian_around_the_truth() -> None:
    point = torch.tensor([[[101.0, 58.0]]])
    x, y = (torch.arange(60) * 4.0).repeat(60), (torch.arange(60) * 4.0).repeat_interleave(60)
    logits = -((x - 101).square() + (y - 58).square()) / (2 * 5.0**2)
    truth = logits.softmax(dim=0)
    valid = torch.ones(1, 1, dtype=torch.bool)
    best = (logits / COSINE_SCALE).view(1, 1, -1).requires_grad_()
    loss = contrastive_loss(best, point, valid)
    assert loss.item() == pytest.approx(-(truth * truth.clamp(min=1e-30).log()).sum().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), best)
    assert gradient.abs().max() < 1e-6
    assert contrastive_loss(best.roll(1, dims=2), point, valid).item() > loss.item() + 0.1


def test_keypoints_of_several_batches_are_padded_to_one() -> None:
    def batch(count: int, fill: float) -> KeypointBatch:
        points = torch.full((1, count, 2), fill)
        return KeypointBatch(points, points + 1, torch.ones(1, count, dtype=torch.bool), torch.tensor([fill]))

    both = KeypointBatch.concatenate([batch(1, 5.0), batch(3, 7.0)])
    assert both.valid.tolist() == [[True, False, False], [True, True, True]]
    assert both.source[0, 0].tolist() == [5.0, 5.0] and both.target[1, 2].tolist() == [8.0, 8.0]
    assert both.threshold.tolist() == [5.0, 7.0]
