"""The sparse grid against the whole one, on real photos."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig, VotesName
from dhpf.model.sparse_grid import on_whole_grid, sparse_cells, sparse_correlation
from dhpf.model.usable_cells import UsableCells

CPU = torch.device("cpu")


@pytest.mark.parametrize("votes", ["plain", "foreground"])
@torch.inference_mode()
def test_it_is_the_whole_correlation_of_the_sparse_cells_with_their_votes_alone(
    squares: torch.Tensor, votes: VotesName
) -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(3, 5, 11), votes=votes))
    source, target = network.describe(squares[:1]), network.describe(squares[1:2])
    cells = sparse_cells(CPU)
    whole = torch.cat(network.appearance(source, target, network.select(source, target)), dim=1)
    kept = torch.zeros_like(whole)
    kept[0, cells[:, None], cells] = whole[0, cells[:, None], cells]
    counted = kept
    if votes == "foreground":
        counted = kept * source.foreground[:, :, None] * target.foreground[:, None, :]
    scores = network.hough.scores(network.hough.vote(counted))
    expected = kept[0, cells] * network.hough.scores_at(scores, cells[None])[0]
    found = sparse_correlation(network, source, target)
    assert (found - expected[:, cells]).abs().max() <= 1e-5 * expected.max()


@torch.inference_mode()
def test_sparse_cells_that_are_not_usable_neither_match_nor_vote(squares: torch.Tensor) -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(3, 5, 11), votes="foreground"))
    source, target = network.describe(squares[:1]), network.describe(squares[1:2])
    cells, part = sparse_cells(CPU), torch.arange(3600)[None] % 60 < 40
    usable = UsableCells(part, torch.ones_like(part))
    found = sparse_correlation(network, source, target, usable)
    foreground = replace(source, foreground=source.foreground * part)
    expected = sparse_correlation(network, foreground, target) * part[0, cells, None]
    assert found[part[0, cells]].max() > 0 and (found - expected).abs().max() <= 1e-6 * expected.max()


def test_between_a_cell_with_and_one_without_a_value_stands_the_value() -> None:
    cells = sparse_cells(CPU)
    known = cells % 60 >= 20
    found = on_whole_grid(torch.where(known, 5.0, -100.0)[:, None], known).view(60, 60)
    assert torch.equal(found[:, 19:], torch.full((60, 41), 5.0)) and found[:, :19].abs().max() == 0


def test_cells_between_sparse_ones_lie_between_their_values() -> None:
    cells = sparse_cells(CPU)
    whole = torch.stack((torch.arange(3600) // 60, torch.arange(3600) % 60), dim=1).float()
    found = on_whole_grid(whole[cells])
    last = (whole == 59).any(dim=1)  # beyond the last sparse cell nothing is known
    assert torch.equal(found[~last], whole[~last])
    assert torch.equal(found[cells], whole[cells])
    assert found[-1].tolist() == [58, 58]
