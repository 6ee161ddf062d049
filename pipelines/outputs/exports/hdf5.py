"""HDF5 as hloc reads it: a folder with features.h5, matches.h5 and pairs.txt.

hloc counts pixels from the centre of the top-left one, so its coordinates are half a pixel less than ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dhpf.errors import InputError
from dhpf.pipelines.outputs.exports.rows import NOT_MATCHED, Tally, missing_extra, pair_rows
from dhpf.pipelines.outputs.exports.shared_keypoints import SharedKeypoints, shared_keypoints
from dhpf.results import Results

TAKEN = "hloc's name of the pair is that of an earlier row"

SPACE = "a name with white space, which hloc's lists of pairs cannot hold"


def write(found: Results, path: Path) -> Tally:
    """Writes the folder.

    Raises:
        InputError: h5py is not installed, a part is damaged, or an image's name cannot be told from another's.
    """
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("hdf5", "h5py") from error
    path.mkdir()
    with shared_keypoints(path / "keypoints.scratch") as keypoints:
        with h5py.File(path / "matches.h5", "w", libver="latest") as file:
            tally = _write_matches(found, keypoints, file, path / "pairs.txt")
        with h5py.File(path / "features.h5", "w", libver="latest") as file:
            _write_features(keypoints, file)
    return tally


def _write_matches(found: Results, keypoints: SharedKeypoints, file: Any, pairs: Path) -> Tally:
    tally = Tally()
    with pairs.open("w", encoding="utf-8") as lines:
        for row in pair_rows(found):
            keypoints.numbers(row)
            name = pair_name(row.source, row.target)
            if not row.is_matched:
                tally.leave_out(NOT_MATCHED)
            elif any(len(image.split()) != 1 for image in (row.source, row.target)):
                tally.leave_out(SPACE)
            elif name in file:
                tally.leave_out(TAKEN)
            else:
                matches, confidence = keypoints.matches(row)
                group = file.create_group(name)
                group["matches0"], group["matching_scores0"] = _by_source_keypoint(matches, confidence)
                lines.write(f"{row.source} {row.target}\n")
                tally.add(len(matches))
    return tally


def _write_features(keypoints: SharedKeypoints, file: Any) -> None:
    for image in keypoints.images():
        try:
            group = file.create_group(image.name)
        except ValueError as error:
            raise InputError(f"image {image.name!r}: HDF5 cannot tell its name from another image's folder") from error
        group["keypoints"] = image.points - np.float32(0.5)
        group["image_size"] = np.array(image.size)


def pair_name(source: str, target: str) -> str:
    """The name under which hloc looks for a pair."""
    return "/".join(name.replace("/", "-") for name in (source, target))


def _by_source_keypoint(
    matches: npt.NDArray[np.int64], confidence: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float16]]:
    """Of each source keypoint up to the last one that matches: its target keypoint, or -1, and the confidence, or 0."""
    size = 1 + int(matches[:, 0].max(initial=-1))
    targets, scores = np.full(size, -1, np.int32), np.zeros(size, np.float16)
    targets[matches[:, 0]], scores[matches[:, 0]] = matches[:, 1], confidence
    return targets, scores
