"""Pseudo-labels for training without keypoints: nearly mutual matches that move as their neighbours do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dhpf.config import FRAME_SIDE, GRID_SIDE
from dhpf.frame import NUM_CELLS, cell_centres
from dhpf.model.engines.engine import BestCells, nonzero

LEAST_MUTUALITY = 0.8
"""Least correlation of a match, as a share of the highest correlation of its target cell with any source cell."""

NEIGHBOURHOOD_SIDE = 7
"""Cells per side of the window whose matches a match is compared with."""

LARGEST_OUTLYING = 6.0
"""Pixels of the frame that a match may differ from the median displacement of its neighbourhood."""

LARGEST_SPREAD = 8.0
"""Most that the median distance of a neighbourhood's displacements from their median may be, in pixels."""

MARGIN = 12.0
"""Pixels along the border of the frame that are left out, because neighbourhoods are cut off there."""

SHARE_LEFT_OUT = 0.3
"""Of the consistent matches, those of lowest correlation: backgrounds agree too, but less."""


def consistent_matches(found: BestCells, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """At most `limit` consistent matches of each of B pairs, spread over the image.

    Args:
        found: matched with every source cell wanted.

    Returns:
        (B, limit, 2) source points, which are cell centres, (B, limit, 2) target points, moved by the median of the
        neighbourhood, both in the frame, and (B, limit) bool, False for padding.
    """
    centres = cell_centres(device=found.target.device)
    displacement = found.points - centres  # (B, N, 2)
    median, spread = _neighbourhood(displacement)
    mutuality = found.filtered_value / nonzero(found.column_maximum.gather(1, found.filtered_target))
    consistent = (
        (mutuality >= LEAST_MUTUALITY)
        & ((displacement - median).norm(dim=2) <= LARGEST_OUTLYING)
        & (spread <= LARGEST_SPREAD)
        & ((centres >= MARGIN) & (centres <= FRAME_SIDE - 1 - MARGIN)).all(dim=1)
    )
    target = (centres + median).clamp(0, FRAME_SIDE - 1)
    cells = torch.zeros(len(median), limit, dtype=torch.long, device=centres.device)
    valid = torch.zeros_like(cells, dtype=torch.bool)
    for pair, (is_consistent, value) in enumerate(zip(consistent, found.filtered_value, strict=True)):
        chosen = _spread_choice(is_consistent, value, limit)
        cells[pair, : len(chosen)], valid[pair, : len(chosen)] = chosen, True
    return centres[cells], target.gather(1, cells.unsqueeze(2).expand(-1, -1, 2)), valid


def _neighbourhood(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, 2) median displacement around each cell, and (B, N) median distance from it."""
    batch, side = len(displacement), NEIGHBOURHOOD_SIDE
    maps = displacement.mT.reshape(batch, 2, GRID_SIDE, GRID_SIDE)
    windows = F.unfold(F.pad(maps, (side // 2,) * 4, mode="replicate"), side).view(batch, 2, side * side, NUM_CELLS)
    median = windows.median(dim=2).values
    spread = (windows - median.unsqueeze(2)).norm(dim=1).median(dim=1).values
    return median.mT, spread


def _spread_choice(consistent: Tensor, value: Tensor, limit: int) -> Tensor:
    """At most `limit` of the consistent cells, evenly over the rows of the grid, without those of lowest value."""
    cells = consistent.nonzero().flatten()
    if len(cells) == 0:
        return cells
    cells = cells[value[cells] >= value[cells].quantile(SHARE_LEFT_OUT)]
    even = torch.linspace(0, len(cells) - 1, min(limit, len(cells)), device=cells.device)
    return cells[even.round().long()]
