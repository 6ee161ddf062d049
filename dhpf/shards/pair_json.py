"""Pair records as JSON, and back from untrusted JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np

from dhpf.errors import InputError
from dhpf.records import Box, PairRecord, Points

_TEXTS = ("pair_id", "category", "source", "target")
_POINTS = ("source_keypoints", "target_keypoints", "source_outline", "target_outline")
_BOXES = ("source_box", "target_box")
_FIELDS = {field.name for field in dataclasses.fields(PairRecord)}


def pair_to_json(pair: PairRecord) -> dict[str, Any]:
    """A pair record as plain JSON values, without the fields that are None."""
    fields: dict[str, Any] = {}
    for name in _FIELDS:
        value = getattr(pair, name)
        if isinstance(value, np.ndarray):
            fields[name] = value.tolist()
        elif name == "difficulty":
            fields[name] = dict(value)
        else:
            fields[name] = value
    return {name: value for name, value in fields.items() if value is not None}


def pair_from_json(value: Any, where: str) -> PairRecord:
    """The inverse of `pair_to_json`, for untrusted values.

    Args:
        where: how to call the value's place in an error.

    Raises:
        InputError: not a pair record.
    """
    try:
        fields = dict(value)
        _require(set(fields) <= _FIELDS, f"unknown field {sorted(set(fields) - _FIELDS)[:1]}")
        _require(all(isinstance(fields.get(name), str) for name in _TEXTS), f"{', '.join(_TEXTS)} must be text")
        _require(isinstance(fields.get("mirrored", False), bool), "mirrored must be true or false")
        for name in _POINTS:
            if name in fields:
                fields[name] = _points(fields[name], name)
        for name in _BOXES:
            if name in fields:
                fields[name] = _box(fields[name], name)
        names = fields.get("keypoint_names", ())
        _require(all(isinstance(name, str) for name in names), "keypoint_names must be texts")
        levels = dict(fields.get("difficulty", {}))
        _require(all(type(level) is int for level in levels.values()), "difficulty levels must be whole numbers")
        return PairRecord(**fields | {"keypoint_names": tuple(names), "difficulty": levels})
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: not a pair record ({error})") from error


def parse_json(content: bytes, where: str) -> Any:
    """Untrusted JSON.

    Raises:
        InputError: not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from error


def _points(value: Any, name: str) -> Points:
    # Text would become numbers, and an overflow only a warning; PairRecord refuses what is not finite.
    with np.errstate(over="ignore"):
        points = np.array(value).astype(np.float32, casting="same_kind") if len(value) else np.empty((0, 2), np.float32)
    _require(points.ndim == 2 and points.shape[1] == 2, f"{name} must be a list of [x, y]")
    return points


def _box(value: Any, name: str) -> Box:
    x0, y0, x1, y1 = map(float, value)
    _require(all(map(math.isfinite, (x0, y0, x1, y1))), f"{name} holds a coordinate that is not a finite number")
    return x0, y0, x1, y1


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
