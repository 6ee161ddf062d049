"""Joint matching: a pair is matched directly and through other images of its kind, and the majority of paths decides.

One path goes from the source straight to the target, one through each intermediate image. A match that is wrong on one
path is seldom wrong in the same way on another, so a match that several paths agree on is right more often than one of
a single path. FlowWeb (Zhou, Lee, Yu, Efros, CVPR 2015) gains from such cycles by optimising flows over a whole
collection; here, the results of paths of at most two matches are added up.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dhpf.config import GRID_SIDE, JointSide
from dhpf.frame import cell_centres
from dhpf.model.engines.engine import ZERO_MAXIMUM, nonzero
from dhpf.model.features import ImageFeatures
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.sparse_grid import on_whole_grid, sparse_cells, sparse_correlation
from dhpf.model.usable_cells import UsableCells, clear_unusable

SHARPNESS = 4
"""Power of a match's mutuality from which the shares of a cell's candidates are computed."""

NUM_CANDIDATES = 8
"""Candidates of a source cell that are kept; the shares of others are negligible."""

KEPT_PAIRS = 2000
"""Pairs of images whose candidates are kept, both ways: 230 kB each; others are found again when they are needed."""

WINDOW = 16.0
"""Standard deviation in pixels of the frame of the window around a cell's best target in which shares are averaged."""


@dataclass(frozen=True)
class JointMatches:
    """The joint matches of one pair, for every source cell.

    Attributes:
        points: (N, 2) target points in the 240 x 240 frame.
        agreement: (N,) in [0, 1]: the share of all paths that leads into the window around the point.
    """

    points: Tensor
    agreement: Tensor

    def to(self, device: torch.device | str) -> JointMatches:
        """The same on a device."""
        return JointMatches(self.points.to(device), self.agreement.to(device))


@dataclass(frozen=True)
class _Candidates:
    """(N, C) target cells of every source cell, and their shares, which add up to 1."""

    cells: Tensor
    shares: Tensor

    @classmethod
    def of(cls, mutuality: Tensor) -> _Candidates:
        """The candidates of an (S, T) mutuality, kept in 4 bytes each."""
        best = mutuality.topk(NUM_CANDIDATES, dim=1)
        weights = best.values.pow(SHARPNESS)
        shares = weights / weights.sum(dim=1, keepdim=True).clamp(min=ZERO_MAXIMUM)
        return cls(best.indices.to(torch.int16), shares.half())


class JointMatching:
    """The images of a block, matched jointly. Candidates of two images are found once, however many paths they are on,
    as long as they are among the KEPT_PAIRS last used.

    Args:
        features: of all images.
        kinds: what each image shows; intermediates are of the kind of source and target.
        limit: a pair has at most this many intermediates, the images that look most like both of its own.
        side: cells per side of the grid on which paths are followed; points between the cells of a sparse grid are
            interpolated.
        usable: (images, N) bool, the cells of each image that take part; None for all.
    """

    def __init__(
        self,
        network: HyperpixelNetwork,
        features: ImageFeatures,
        kinds: Sequence[Hashable],
        limit: int,
        side: JointSide = 60,
        usable: Tensor | None = None,
    ) -> None:
        self._network, self._features, self._kinds, self._limit = network, features, kinds, limit
        self._usable = usable
        self._is_sparse = side < GRID_SIDE
        # The highest values of the deepest layer tell what an image shows, wherever it is and however large.
        looks = F.normalize(features.maps[-1].float().amax(dim=(2, 3)), dim=1)
        self._likeness = looks @ looks.T
        self._centres = cell_centres(device=looks.device)
        if self._is_sparse:
            self._centres = self._centres[sparse_cells(looks.device)]
        self._window = _window(self._centres)
        self._candidates: dict[tuple[int, int], tuple[_Candidates, _Candidates]] = {}

    def intermediates(self, source: int, target: int) -> list[int]:
        """The images through which a pair is matched, by their place, ascending."""
        kind = self._kinds[source]
        others = [n for n, k in enumerate(self._kinds) if k == kind and n not in (source, target)]
        if self._kinds[target] != kind or not others:
            return []
        likeness = torch.minimum(self._likeness[source, others], self._likeness[target, others])
        chosen = likeness.argsort(descending=True, stable=True)[: self._limit]
        return sorted(others[n] for n in chosen.tolist())

    @torch.no_grad()
    def match(self, source: int, target: int, usable: UsableCells | None = None) -> JointMatches:
        """The joint matches of two images, which are given by their places in the features.

        Args:
            usable: the cells of this pair (a batch of one) in which paths may begin and end; None for all.
        """
        direct = self._between(source, target)
        device = direct.cells.device
        total = torch.zeros(len(self._centres), len(self._centres), device=device)
        total.scatter_add_(1, direct.cells.long(), direct.shares.float())
        through = self.intermediates(source, target)
        for image in through:
            first, second = self._between(source, image), self._between(image, target)
            middle = first.cells.long()
            cells = second.cells[middle].long().flatten(1)
            shares = first.shares.float().unsqueeze(2) * second.shares.float()[middle]
            total.scatter_add_(1, cells, shares.flatten(1))
        if usable is not None:
            ends = (
                cells[sparse_cells(device)] if self._is_sparse else cells
                for cells in (usable.source[0], usable.target[0])
            )
            clear_unusable(total, *ends)
        points, agreement = _point_and_agreement(total / (1 + len(through)), self._window, self._centres)
        if self._is_sparse:
            shift = torch.cat((points - self._centres, agreement[:, None]), dim=1)
            shift = on_whole_grid(shift, None if usable is None else agreement > 0)
            points, agreement = cell_centres(device=device) + shift[:, :2], shift[:, 2]
        return JointMatches(points, agreement)

    def _between(self, source: int, target: int) -> _Candidates:
        """The candidates of source cells in the target. Both directions of a pair are computed and kept together."""
        pair = (min(source, target), max(source, target))
        if pair not in self._candidates:
            mutuality = self._mutuality(min(source, target), max(source, target))
            self._candidates[pair] = _Candidates.of(mutuality), _Candidates.of(mutuality.T)
            if len(self._candidates) > KEPT_PAIRS:
                self._candidates.pop(next(iter(self._candidates)))
        self._candidates[pair] = self._candidates.pop(pair)  # the pair that was used last comes last
        return self._candidates[pair][source > target]

    def _mutuality(self, source: int, target: int) -> Tensor:
        """(S, T) in [0, 1]: each match's correlation as a share of its row's maximum times that of its column's."""
        one, other = (self._features[torch.tensor([n])].in_single_precision() for n in (source, target))
        usable = None
        if self._usable is not None:
            usable = UsableCells.of_images(self._usable, [(source, target)])
            usable = None if usable.is_every else usable
        if self._is_sparse:
            correlation = sparse_correlation(self._network, one, other, usable)
        else:
            correlation = self._network.correlate(one, other, usable).correlation[0]
        row_maximum, column_maximum = (nonzero(correlation.amax(dim=n, keepdim=True)) for n in (1, 0))
        return (correlation / row_maximum) * (correlation / column_maximum)


def _point_and_agreement(shares: Tensor, window: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """(S, 2) points and (S,) agreement; a cell without any candidate points to the frame's corner, with agreement 0.

    Args:
        shares: (S, T), rows of which add up to 1, or to less where paths end nowhere.
        window: (T, T) of each target cell, see `_window`.
        centres: (T, 2) of the target cells.
    """
    weights = shares * window[shares.argmax(dim=1)]
    agreement = weights.sum(dim=1)
    points = (weights @ centres) / agreement.clamp(min=ZERO_MAXIMUM).unsqueeze(1)
    return points, agreement.clamp(max=1)


def _window(centres: Tensor) -> Tensor:
    """(N, N) Gaussian of the distance of two cells: 1 for a cell itself, and 0 where it would be negligible."""
    squares = torch.cdist(centres, centres).square()
    return (-squares / (2 * WINDOW**2)).exp().where(squares < (6 * WINDOW) ** 2, 0)
