import json

import numpy as np
import pytest

from dhpf.errors import InputError
from dhpf.records import PairRecord
from dhpf.shards.pair_json import pair_from_json, pair_to_json, parse_json

FULL = PairRecord(
    pair_id="cat-7",
    category="cat é",
    source="a.b/1.png",
    target="2.png",
    source_keypoints=np.array([[1, 2], [3.25, -0.5]], np.float32),
    target_keypoints=np.array([[5, 6], [0.1, 8]], np.float32),
    source_box=(1, 2, 3, 4.5),
    target_box=(0, 0, 9, 9),
    source_outline=np.array([[0, 0], [4, 0], [4, 4]], np.float32),
    target_outline=np.empty((0, 2), np.float32),
    mirrored=True,
    keypoint_names=("ear", "paw"),
    difficulty={"scale": 2},
)
GOOD = pair_to_json(FULL)


def test_every_field_comes_back() -> None:
    back = pair_from_json(json.loads(json.dumps(GOOD, allow_nan=False)), "x")
    assert set(GOOD) == set(vars(FULL)), "a field that is new must be written too"
    for name, value in vars(FULL).items():
        assert np.array_equal(getattr(back, name), value), name
        assert type(getattr(back, name)) is type(value), name


def test_what_is_none_is_not_written() -> None:
    written = pair_to_json(PairRecord("1", "", "a", "b"))
    assert not any(value is None for value in written.values())
    assert pair_from_json(written, "x") == PairRecord("1", "", "a", "b")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": 3}, "must be text"),
        ({"pair_id": None}, "must be text"),
        ({"extra": 1}, "unknown field .'extra'"),
        ({"mirrored": "false"}, "mirrored must be true or false"),
        ({"source_keypoints": [["1", "2"], ["3", "4"]]}, "not a pair record"),
        ({"source_keypoints": [[1, 2]]}, "1 source keypoints but 2 target keypoints"),
        ({"source_keypoints": [1, 2, 3, 4]}, r"must be a list of \[x, y\]"),
        ({"source_keypoints": [[1, 2, 3], [4, 5, 6]]}, r"must be a list of \[x, y\]"),
        ({"source_keypoints": [[1e300, 2], [3, 4]]}, "not a finite number"),
        ({"source_outline": [[1, None]]}, "not a pair record"),
        ({"source_outline": {"x": 1}}, "not a pair record"),
        ({"target_box": [1, 2, 3]}, "not a pair record"),
        ({"target_box": [1, 2, 3, float("inf")]}, "not a finite number"),
        ({"target_box": [1, 2, 3, 10**400]}, "too large"),
        ({"source_keypoints": [[10**400, 2], [3, 4]]}, "not a pair record"),
        ({"difficulty": {"scale": "hard"}}, "whole numbers"),
        ({"difficulty": [1]}, "not a pair record"),
        ({"keypoint_names": [1]}, "must be texts"),
    ],
)
def test_hostile_values_are_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=f"shard 3: not a pair record.*{reason}|shard 3: {reason}"):
        pair_from_json(GOOD | change, "shard 3")


@pytest.mark.parametrize("value", [[1], {}, None, 7, "text", [["pair_id", "1"]]])
def test_other_json_is_no_pair(value: object) -> None:
    with pytest.raises(InputError, match="x: not a pair record"):
        pair_from_json(value, "x")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"\x80\x04N.", b"[" * 100_000])
def test_what_is_no_json(content: bytes) -> None:
    with pytest.raises(InputError, match="x: not JSON"):
        parse_json(content, "x")
