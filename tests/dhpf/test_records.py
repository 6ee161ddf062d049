import numpy as np
import pytest

from dhpf.errors import InputError
from dhpf.records import PairRecord

TWO = np.zeros((2, 2), np.float32)


def test_keypoints_come_in_pairs() -> None:
    PairRecord("p", "", "a", "b", TWO, TWO)
    with pytest.raises(InputError, match="'p': 2 source keypoints but 1 target"):
        PairRecord("p", "", "a", "b", TWO, TWO[:1])


def test_points_are_finite_and_two_dimensional() -> None:
    with pytest.raises(InputError, match="not a finite number"):
        PairRecord("p", "", "a", "b", TWO, np.array([[0, 0], [np.nan, 1]], np.float32))
    with pytest.raises(InputError, match=r"\(K, 2\)"):
        PairRecord("p", "", "a", "b", source_outline=np.zeros((3, 3), np.float32))
