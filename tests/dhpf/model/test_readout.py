from __future__ import annotations

import numpy as np
import pytest
import torch

from dhpf.model.engines.compiled import _read_softly
from dhpf.model.readout import RADIUS, WINDOW, cell_points, read_out, window_table


def peaks(*places: tuple[int, int, float]) -> torch.Tensor:
    """A row of 60 x 60 values, 0 but at (x, y, value)."""
    row = torch.zeros(60, 60)
    for x, y, value in places:
        row[y, x] = value
    return row.view(1, -1)


def softly(row: torch.Tensor) -> list[float]:
    [point] = read_out(row, row.argmax(dim=1), "soft").tolist()
    return [float(number) for number in point]


def test_one_peak_alone_is_read_at_its_centre() -> None:
    assert softly(peaks((7, 31, 0.4))) == [28, 124]
    assert softly(peaks((0, 59, 0.4))) == [0, 236]


def test_equal_neighbours_are_read_between_them() -> None:
    near = float(np.exp(-(4**2) / (2 * WINDOW**2)))
    x, y = softly(peaks((7, 31, 1.0), (8, 31, 1.0)))
    assert x == pytest.approx((28 + 32 * near) / (1 + near), abs=1e-4) and y == 124


def test_a_weaker_neighbour_counts_by_its_square() -> None:
    near = 0.25 * float(np.exp(-(4**2) / (2 * WINDOW**2)))
    x, _ = softly(peaks((7, 31, 1.0), (8, 31, 0.5)))
    assert x == pytest.approx((28 + 32 * near) / (1 + near), abs=1e-4)


def test_a_peak_far_away_does_not_count() -> None:
    assert softly(peaks((7, 31, 1.0), (7 + RADIUS + 1, 31, 0.99))) == [28, 124]


def test_a_row_of_zeros_is_read_at_its_first_cell() -> None:
    assert softly(peaks()) == [0, 0]


def test_cell_read_out_is_the_centre_of_the_best_cell() -> None:
    row = peaks((7, 31, 1.0), (8, 31, 0.99))
    assert read_out(row, row.argmax(dim=1), "cell").tolist() == [[28, 124]]
    assert cell_points(torch.tensor([[61, 0]]), 60).tolist() == [[[4, 4], [0, 0]]]


def test_compiled_code_reads_the_same() -> None:
    rows = torch.rand(20, 3600, generator=torch.Generator().manual_seed(0)).pow(8)
    best = rows.argmax(dim=1)
    expected = read_out(rows, best, "soft")
    table = window_table().numpy()
    for row, cell, point in zip(rows, best.tolist(), expected, strict=True):
        assert _read_softly(row.view(60, 60).numpy(), cell, table) == pytest.approx(point.tolist(), abs=1e-3)
