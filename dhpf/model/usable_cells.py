"""Which cells of the grid take part in matching: not those on a plain border, or off the part that a user names.

A frame or a letterbox looks the same in every image that has it, so its cells would give the most confident matches of
all. Cells that are not usable are in no match: their appearance is 0 with every other cell, so that they cast no votes
either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhpf.config import FRAME_SIDE, GRID_SIDE
from dhpf.errors import InputError
from dhpf.frame import CELL_STRIDE, NUM_CELLS, Size, cell_centres, lies_outside, points_to_frame
from dhpf.images import ImageError
from dhpf.records import Part

LARGEST_DEVIATION = 3.0
"""Root mean square, in levels of 255, by which the pixels of a border's row may differ from the colour of its edge."""

LEAST_CHANGE = 0.5
"""Share of the pixels along a border's inner edge that must differ from it: an object touches the edge of its plain
background only here and there."""

EVERY_CELL = torch.ones(NUM_CELLS, dtype=torch.bool)
"""(N,) of an image that is matched whole; not to be changed."""

ROUNDING = 1e-3
"""Pixels of the frame by which a box may miss a cell's centre that lies on its edge."""

MARGIN = 4.0
"""Pixels of the frame beside a border that are left out with it: cells there see more of its edge than of the image."""


@dataclass(frozen=True)
class UsableCells:
    """The cells of B pairs that take part in matching.

    Attributes:
        source, target: (B, N) bool.
    """

    source: Tensor
    target: Tensor

    def __getitem__(self, pairs: slice) -> UsableCells:
        return UsableCells(self.source[pairs], self.target[pairs])

    @classmethod
    def concatenate(cls, parts: Sequence[UsableCells]) -> UsableCells:
        """Several batches as one."""
        return cls(torch.cat([part.source for part in parts]), torch.cat([part.target for part in parts]))

    @classmethod
    def of_images(cls, usable: Tensor, pairs: Sequence[tuple[int, int]]) -> UsableCells:
        """Those of pairs of images, from (images, N) bool."""
        sources, targets = torch.tensor(pairs).view(-1, 2).unbind(dim=1)
        return cls(usable[sources], usable[targets])

    @property
    def is_every(self) -> bool:
        """Whether all cells take part."""
        return bool(self.source.all() and self.target.all())

    def to(self, device: torch.device | str) -> UsableCells:
        """The same on a device."""
        return UsableCells(self.source.to(device), self.target.to(device))

    def votes(self, of_source: Tensor, of_target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) how much each cell's votes count, from that of all cells: (B, N), or (B, 0) where all count alike."""
        cells = (of_source, self.source), (of_target, self.target)
        source, target = (votes * usable if votes.numel() else usable.float() for votes, usable in cells)
        return source, target


def clear_unusable(matches: Tensor, source: Tensor, target: Tensor) -> None:
    """Makes the matches of cells that are not usable 0, in place.

    Args:
        matches: (..., R, T) appearance.
        source, target: (..., R) and (..., T) bool, whether the cells of its rows and of its columns are usable.
    """
    matches.masked_fill_(~source.unsqueeze(-1), 0).masked_fill_(~target.unsqueeze(-2), 0)


def within_border(square: Tensor, name: str) -> Tensor:
    """(N,) bool, the cells inside an image's plain border: all where it has none.

    A border is peeled off in rows and columns, from all four edges in turn, as long as they have the colour of the
    edge that they are counted from, where the image begins along a straight line.

    Args:
        square: (3, side, side) uint8, as the network takes it.
        name: of the image.

    Raises:
        ImageError: the image is all of one colour, or has hardly anything within its border.
    """
    pixels = square.numpy().transpose(1, 2, 0).astype(np.float32)
    side = len(pixels)
    first, last = [0, 0], [side, side]  # of rows, of columns
    while True:
        before = [*first, *last]
        for axis in (0, 1):
            for backwards in (False, True):
                inside = pixels[first[0] : last[0], first[1] : last[1]]
                lines = inside if axis == 0 else inside.transpose(1, 0, 2)
                depth = _num_plain(lines[::-1] if backwards else lines)
                if depth >= len(lines) - 1:
                    raise ImageError(f"image {name}: all of one colour, with nothing to match")
                first[axis] += 0 if backwards else depth
                last[axis] -= depth if backwards else 0
        if before == [*first, *last]:
            break
    rows, columns = (_inside(begin, end, side) for begin, end in zip(first, last, strict=True))
    if not rows.any() or not columns.any():
        raise ImageError(f"image {name}: a border of one colour leaves less than a cell of the grid to match")
    return (rows[:, None] & columns).flatten()


def _num_plain(lines: NDArray[np.float32]) -> int:
    """How many of (R, C, 3) rows, from the first on, have the colour of the first one all along; 0 of a background.

    The row behind them counts, too: where an image was made smaller it is a mix of the border and what is within.
    """
    squares = np.square(lines - lines[0].mean(axis=0)).mean(axis=2)
    others = np.flatnonzero(np.sqrt(squares.mean(axis=1)) > LARGEST_DEVIATION)
    if not len(others):
        return len(lines)
    depth = int(others[0])
    behind = squares[depth : depth + 2].max(axis=0)
    if not depth or (np.sqrt(behind) > LARGEST_DEVIATION).mean() < LEAST_CHANGE:
        return 0
    return depth + 1


def _inside(begin: int, end: int, side: int) -> Tensor:
    """(60,) bool along one axis, whose pixels before `begin` and from `end` on are border."""
    centres = torch.arange(GRID_SIDE) * CELL_STRIDE
    to_frame = FRAME_SIDE / side
    after = (centres >= begin * to_frame + MARGIN) | torch.tensor(begin == 0)
    return after & ((centres <= end * to_frame - MARGIN) | torch.tensor(end == side))


def within_part(part: Part, size: Size, name: str, usable: Tensor = EVERY_CELL) -> Tensor:
    """(N,) bool, those of the usable cells whose centres lie in a part of an image of (width, height) pixels.

    Args:
        name: of the part, such as "source_box".
        usable: (N,) bool.

    Raises:
        InputError: the part is empty, not within the image, or so small that no cell's centre lies in it.
    """
    if isinstance(part, np.ndarray):
        if part.shape != size[::-1]:
            wanted = f"the image has {size[0]} x {size[1]}"
            raise InputError(f"{name}: a mask of {' x '.join(map(str, part.shape[::-1]))} pixels, but {wanted}")
        rows, columns = (np.arange(GRID_SIDE) * length // GRID_SIDE for length in part.shape)
        cells = torch.from_numpy(part[np.ix_(rows, columns)])
    else:
        corners = np.array(part, dtype=np.float32).reshape(2, 2)
        outside = lies_outside(corners, size, "")
        if outside is not None:
            given = ",".join(f"{number:g}" for number in part)
            raise InputError(f"{name}: {given} lies outside the image of {size[0]} x {size[1]} pixels")
        # Within its own rounding a corner that is given on a centre is there.
        (x0, y0), (x1, y1) = points_to_frame(corners, size) + np.array([[-ROUNDING], [ROUNDING]], np.float32)
        x, y = cell_centres().view(GRID_SIDE, GRID_SIDE, 2).unbind(dim=2)
        cells = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    cells = cells.flatten() & usable
    if not cells.any():
        apart = f"{size[0] / GRID_SIDE:.3g} x {size[1] / GRID_SIDE:.3g} pixels"
        raise InputError(f"{name}: holds no point of the grid that is matched, whose points are {apart} apart")
    return cells
