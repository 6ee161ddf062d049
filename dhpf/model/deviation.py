"""Measures how far an engine's result is from that of the whole correlation matrix."""

from __future__ import annotations

from torch import Tensor

from dhpf.model.engines.engine import BestCells
from dhpf.model.network import MatcherOutput
from dhpf.model.transfer import mutual_filter


def largest_deviation(found: BestCells, whole: MatcherOutput, wanted: Tensor) -> float:
    """The largest error of what an engine found, as a share of the largest value of its kind; 0 for none.

    Where two target cells have equal values both are correct, so values at chosen cells are compared, not the cells.

    Args:
        found: of B pairs.
        whole: correlation and geometric scores of the same pairs.
        wanted: (B, N) bool, the source cells whose match after the mutual filter was asked for.
    """
    correlation = whole.correlation
    highest = correlation.amax(dim=2)
    filtered = mutual_filter(correlation)
    chosen = correlation.gather(2, found.target[..., None])[..., 0]
    chosen_filtered = filtered.gather(2, found.filtered_target[..., None])[..., 0]
    errors = (
        _error(found.value, highest),
        _error(found.column_maximum, correlation.amax(dim=1)),
        _error(found.geometric_scores, whole.geometric_scores),
        _error(chosen, highest),
        _error(chosen_filtered[wanted], filtered.amax(dim=2)[wanted]),
    )
    return max(errors)


def _error(ours: Tensor, theirs: Tensor) -> float:
    if ours.numel() == 0:
        return 0.0
    largest = float(theirs.abs().max())
    return float((ours - theirs).abs().max()) / (largest or 1.0)
