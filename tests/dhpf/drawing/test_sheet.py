"""Contact sheets: where pictures and captions come to stand."""

from __future__ import annotations

import pytest

from dhpf.drawing import contact_sheet
from tests.dhpf.drawing.seen import SOURCE, plain, rectangle


def test_a_contact_sheet_places_pictures_row_by_row() -> None:
    sheet = contact_sheet([plain(50, 80, 30), plain(90, 40, 90), plain(60, 60, 150)], ["a", "b", "c"], columns=2)
    first, second, third = (rectangle(sheet, grey) for grey in (30, 90, 150))

    assert first[2] < second[0]
    assert third[1] > max(first[3], second[3]) + 20  # the captions stand between
    assert third[2] < second[0]


def test_contact_sheets_at_their_ends() -> None:
    assert contact_sheet([], [], columns=3).shape[2] == 3
    assert contact_sheet([SOURCE], ["long " * 200], columns=9).shape[1] < 700
    with pytest.raises(ValueError, match="1 pictures, 2 captions"):
        contact_sheet([SOURCE], ["a", "b"], columns=1)
    with pytest.raises(ValueError, match="0 columns"):
        contact_sheet([SOURCE], ["a"], columns=0)
