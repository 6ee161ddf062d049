import math

import numpy as np
import pytest
import torch

from dhpf.config import HoughBinsName
from dhpf.model.hough import HoughVoting, bin_layout


def test_bin_layouts() -> None:
    assert bin_layout("current") == (math.sqrt(480 * 480 / 8192), 91)
    assert bin_layout("legacy") == (math.sqrt(28), 97)


def plain_bins(bins: HoughBinsName) -> torch.Tensor:
    """(3600, 3600) bin of every match, computed by the formula in float32."""
    size, per_axis = bin_layout(bins)
    y, x = (np.arange(3600) // 60 * 4).astype(np.float32), (np.arange(3600) % 60 * 4).astype(np.float32)
    bin_y = np.floor((240 - y[:, None] + y[None]) / np.float32(size)).astype(np.int64)
    bin_x = np.floor((240 - x[:, None] + x[None]) / np.float32(size)).astype(np.int64)
    return torch.from_numpy(bin_y * per_axis + bin_x)


@pytest.mark.parametrize("bins", ["current", "legacy"])
def test_votes_and_scores_are_those_of_a_count_by_match(bins: HoughBinsName) -> None:
    voting = HoughVoting(bins)
    appearance = torch.rand(1, 3600, 3600) ** 4
    index = plain_bins(bins)
    counted = torch.bincount(index.flatten(), appearance.flatten().double(), minlength=voting.bins_per_axis**2)
    votes = voting.vote(appearance)
    space = voting.space(votes)
    assert torch.allclose(space.flatten().double(), counted, rtol=1e-4, atol=1e-3)
    scores = voting.scores(votes)
    rows = torch.cat([voting.score_row(scores, y) for y in range(60)], dim=1)
    assert torch.equal(rows[0], voting.smooth(space).flatten()[index])
    cells = torch.tensor([[5, 3000, 3599]])
    assert torch.equal(voting.scores_at(scores, cells), rows[:, cells[0]])


def test_smoothing_keeps_the_weight_of_an_inner_vote() -> None:
    voting = HoughVoting("current")
    space = torch.zeros(1, 91, 91)
    space[0, 40, 50] = 3.0
    smoothed = voting.smooth(space)
    assert smoothed.sum().item() == pytest.approx(3.0, rel=1e-5)
    assert smoothed.argmax().item() == 40 * 91 + 50
    assert smoothed[0, 40, 46] == 0  # beyond the 7 x 7 window


def test_a_common_shift_wins() -> None:
    voting = HoughVoting("current")
    appearance = torch.zeros(1, 3600, 3600)
    cells = torch.arange(0, 3000, 7)
    cells = cells[cells % 60 < 50]
    appearance[0, cells, cells + 5] = 1.0  # five cells to the right
    scores = voting.scores(voting.vote(appearance))
    assert scores[0, 59, 64] == scores.max()
