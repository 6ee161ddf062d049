"""Which matches may take the place of keypoints: best cells made by hand, each with one fault."""

from dataclasses import replace

import torch
from torch import Tensor

from dhpf.frame import NUM_CELLS
from dhpf.model.consistent import consistent_matches
from dhpf.model.engines.engine import BestCells
from dhpf.model.readout import cell_points

DX, DY = 2, 1
"""Cells that every match of the made-up pair moves by."""


def moved(batch: int = 1) -> BestCells:
    """Best cells in which every cell matches the one DX to the right and DY below it, with full confidence."""
    y, x = torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij")
    target = ((y + DY).clamp(max=59) * 60 + (x + DX).clamp(max=59)).flatten().expand(batch, -1)
    ones = torch.ones(batch, NUM_CELLS)
    return BestCells(target, ones, ones, target, ones, cell_points(target, 60), torch.ones(batch, 119, 119))


def cells_of(points: Tensor) -> set[int]:
    return {int(y // 4 * 60 + x // 4) for x, y in points.tolist()}


def test_matches_that_move_together_are_consistent_and_lie_all_over_the_image() -> None:
    source, target, valid = consistent_matches(moved(), 64)
    assert valid.all() and source.shape == target.shape == (1, 64, 2)
    assert torch.equal(target - source, torch.tensor([4.0 * DX, 4.0 * DY]).expand(1, 64, 2))
    assert source.amin() >= 12 and source.amax() <= 227
    assert source[0, :, 1].amin() < 40 and source[0, :, 1].amax() > 200
    assert len(cells_of(source[0])) == 64


def test_a_match_unlike_its_neighbours_is_left_out() -> None:
    found, outlier = moved(), 30 * 60 + 30
    found.filtered_target[0, outlier] = 5 * 60 + 5
    found.points[0, outlier] = 20
    source, target, valid = consistent_matches(found, NUM_CELLS)
    assert outlier not in cells_of(source[valid]) and outlier + 1 in cells_of(source[valid])
    assert torch.equal(target[valid] - source[valid], torch.tensor([8.0, 4.0]).expand(int(valid.sum()), 2))


def test_a_match_a_cell_beside_its_neighbours_moves_as_they_do() -> None:
    found, cell = moved(), 30 * 60 + 30
    found.filtered_target[0, cell] += 1
    found.points[0, cell, 0] += 4
    source, target, valid = consistent_matches(found, NUM_CELLS)
    assert cell in cells_of(source[valid])
    assert torch.equal(target[valid] - source[valid], torch.tensor([8.0, 4.0]).expand(int(valid.sum()), 2))


def test_a_match_whose_target_likes_another_source_better_is_left_out() -> None:
    found, cell = moved(), 30 * 60 + 30
    maximum = found.column_maximum.clone()
    maximum[0, found.target[0, cell]] = 1.3
    source, _, valid = consistent_matches(replace(found, column_maximum=maximum), NUM_CELLS)
    assert cell not in cells_of(source[valid]) and cell + 1 in cells_of(source[valid])


def test_the_least_like_ones_are_left_out() -> None:
    value = torch.linspace(0.1, 1, NUM_CELLS)[None]  # rises from the top of the image to its bottom
    found = replace(moved(), filtered_value=value, column_maximum=torch.zeros(1, NUM_CELLS))
    source, _, valid = consistent_matches(found, NUM_CELLS)
    assert source[valid][:, 1].amin() > 60


def test_a_pair_without_order_has_none_and_says_so_beside_one_that_has() -> None:
    found = moved(batch=2)
    chaos = torch.randperm(NUM_CELLS, generator=torch.Generator().manual_seed(0))
    target = torch.stack([chaos, found.target[1]])
    source, points, valid = consistent_matches(
        replace(found, filtered_target=target, points=cell_points(target, 60)), 16
    )
    assert not valid[0].any() and valid[1].all()
    alone = consistent_matches(moved(), 16)
    assert torch.equal(source[1:], alone[0]) and torch.equal(points[1:], alone[1])
