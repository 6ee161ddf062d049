"""Keypoints that all pairs of an image share, as tools want them in which a match is two numbers of keypoints.

A point becomes the keypoint at the centre of the cell of 1 x 1 pixels around it, at most half a pixel away in x and y:
the rule by which hloc makes keypoints of dense matches. Images that were not asked for lately wait in a scratch file,
so that memory does not grow with the collection.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dhpf.pipelines.outputs.exports.rows import Coordinates, PairRow

MOST_KEYPOINTS = 500_000
"""Keypoints in memory at once, of all images together; each takes about 100 bytes."""

_X_BITS = 32


@dataclass(frozen=True)
class ImageKeypoints:
    """An image and all its keypoints.

    Attributes:
        number: from 1, in the order in which the rows name the images.
        size: width and height in pixels; (0, 0) if no row says it.
        points: (N, 2) in the original image's pixels, from its top-left corner.
    """

    number: int
    name: str
    size: tuple[int, int]
    points: Coordinates


@dataclass
class _Image:
    number: int
    ids: dict[int, int]


class SharedKeypoints:
    """Numbers the keypoints of each image from 0, in the order in which the rows name them.

    Args:
        scratch: a file that is not there yet.
    """

    def __init__(self, scratch: Path) -> None:
        self._known: OrderedDict[str, _Image] = OrderedDict()
        self._num_keypoints = 0
        self._file = sqlite3.connect(scratch, isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute(
            "CREATE TABLE images (number INTEGER PRIMARY KEY, name TEXT UNIQUE, width INT, height INT, cells BLOB)"
        )

    def close(self) -> None:
        """Ends the use of the scratch file."""
        self._file.close()

    def numbers(self, row: PairRow) -> tuple[int, int]:
        """The numbers of a row's images."""
        return self._image(row.source, row.source_size).number, self._image(row.target, row.target_size).number

    def matches(self, row: PairRow) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The matches of a row between keypoints of its two images.

        Of several matches of a keypoint the most confident one counts.

        Returns:
            (N, 2) numbers of the keypoints, and the (N,) confidence.
        """
        source = self._ids(self._image(row.source, row.source_size), row.source_points)
        target = self._ids(self._image(row.target, row.target_size), row.target_points)
        first_of_source, first_of_target = (np.unique(ids, return_index=True)[1] for ids in (source, target))
        kept = np.intersect1d(first_of_source, first_of_target, assume_unique=True)
        return np.stack([source[kept], target[kept]], axis=1), row.confidence[kept]

    def images(self) -> Iterator[ImageKeypoints]:
        """All images, by their numbers, once all rows are numbered."""
        while self._known:
            self._put_aside()
        rows = self._file.execute("SELECT number, name, width, height, cells FROM images ORDER BY number")
        for number, name, width, height, cells in rows:
            yield ImageKeypoints(number, name, (width, height), _points(np.frombuffer(cells, np.int64)))

    def _image(self, name: str, size: npt.NDArray[np.int32]) -> _Image:
        image = self._known.get(name)
        if image is None:
            width, height = map(int, size)
            self._file.execute("INSERT OR IGNORE INTO images VALUES (NULL, ?, 0, 0, x'')", (name,))
            if width:
                self._file.execute("UPDATE images SET width = ?, height = ? WHERE name = ?", (width, height, name))
            number, cells = self._file.execute("SELECT number, cells FROM images WHERE name = ?", (name,)).fetchone()
            image = _Image(number, {cell: i for i, cell in enumerate(np.frombuffer(cells, np.int64).tolist())})
            self._known[name] = image
            self._num_keypoints += len(image.ids)
        self._known.move_to_end(name)
        while self._num_keypoints > MOST_KEYPOINTS and len(self._known) > 2:
            self._put_aside()
        return image

    def _put_aside(self) -> None:
        _, image = self._known.popitem(last=False)
        cells = np.fromiter(image.ids, np.int64, len(image.ids)).tobytes()
        self._file.execute("UPDATE images SET cells = ? WHERE number = ?", (cells, image.number))
        self._num_keypoints -= len(image.ids)

    def _ids(self, image: _Image, points: Coordinates) -> npt.NDArray[np.int64]:
        before = len(image.ids)
        ids = [image.ids.setdefault(cell, len(image.ids)) for cell in _cells(points).tolist()]
        self._num_keypoints += len(image.ids) - before
        return np.array(ids, dtype=np.int64)


def _cells(points: Coordinates) -> npt.NDArray[np.int64]:
    """The cell around each of (N, 2) points, as one number."""
    cells: npt.NDArray[np.int64] = np.rint(points).astype(np.int64)
    return (cells[:, 1] << _X_BITS) + cells[:, 0]


def _points(cells: npt.NDArray[np.int64]) -> Coordinates:
    """The centres of cells, (N, 2)."""
    x = (cells & (2**_X_BITS - 1)).astype(np.uint32).view(np.int32)
    return np.stack([x, (cells - x) >> _X_BITS], axis=1).astype(np.float32)


@contextlib.contextmanager
def shared_keypoints(scratch: Path) -> Iterator[SharedKeypoints]:
    """Shared keypoints with a scratch file that is removed in the end."""
    keypoints = SharedKeypoints(scratch)
    try:
        yield keypoints
    finally:
        keypoints.close()
        scratch.unlink()
