"""Shards: a block as a webdataset tar with each image once, and an index by which it is read at any place.

Members are image-000003.jpg with image-000003.json (id, size, digest), then pair-000007.json. Bytes depend on the
block alone. A tar is untrusted: nothing in it is executed, and what the index does not name is never looked at.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dhpf.data.blocks import Block
from dhpf.errors import InputError
from dhpf.images import ImageError, decode_image
from dhpf.records import PairRecord, Points, Rejection

os.environ.setdefault("WDS_SECURE", "1")  # webdataset reads it on import: no pickles, no shell
import webdataset  # noqa: E402

BORDER_TOLERANCE = 2.0
"""Pixels by which an annotation may overstep its image: published ones do by up to 1, being rounded or scaled."""

_ENDINGS = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"BM", "bmp"), (b"GIF8", "gif"))
_POINT_FIELDS = ("source_keypoints", "target_keypoints", "source_outline", "target_outline")
_PAIR_FIELDS = {field.name for field in dataclasses.fields(PairRecord)}


@dataclass(frozen=True)
class IndexEntry:
    """One member of a shard that can be read on its own.

    Attributes:
        kind: "image" or "pair".
        id: image or pair id.
        offset, size: where its bytes lie in the tar.
        sha256: of those bytes.
        width, height: of an image as decoded, in pixels; 0 for a pair.
    """

    kind: str
    id: str
    offset: int
    size: int
    sha256: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class EncodedShard:
    """A shard's bytes, its index, and the pairs that could not go in."""

    tar: bytes
    index: bytes
    rejections: tuple[Rejection, ...]
    num_pairs: int
    num_images: int


def encode_shard(block: Block, read: Callable[[str], bytes]) -> EncodedShard:
    """Makes a shard of a block; pairs in = pairs written + rejections.

    Args:
        read: gives an image's encoded bytes by id, or raises ImageError.
    """
    images, broken = _load_images(block.images, read)
    pairs, rejections = [], []
    for pair in block.pairs:
        reason = _unusable(pair, images, broken)
        if reason is None:
            pairs.append(pair)
        else:
            rejections.append(Rejection(pair.pair_id, pair.source, pair.target, reason))
    used = {image for pair in pairs for image in (pair.source, pair.target)}
    kept = {image: images[image] for image in block.images if image in used}
    tar = _write_tar(kept, pairs)
    return EncodedShard(tar, _write_index(tar, kept, pairs), tuple(rejections), len(pairs), len(kept))


@dataclass(frozen=True)
class _Image:
    data: bytes
    width: int
    height: int


def _load_images(ids: Iterable[str], read: Callable[[str], bytes]) -> tuple[dict[str, _Image], dict[str, str]]:
    images, broken = {}, {}
    for image_id in ids:
        try:
            data = read(image_id)
            height, width = decode_image(data, image_id).shape[:2]
            images[image_id] = _Image(data, width, height)
        except ImageError as error:
            broken[image_id] = str(error)
    return images, broken


def _unusable(pair: PairRecord, images: dict[str, _Image], broken: dict[str, str]) -> str | None:
    for image_id in (pair.source, pair.target):
        if image_id in broken:
            return broken[image_id]
    for side, image_id in (("source", pair.source), ("target", pair.target)):
        image = images[image_id]
        for what in ("keypoints", "outline"):
            points: Points | None = getattr(pair, f"{side}_{what}")
            if points is None or not len(points):
                continue
            overstep = np.maximum(-points, points - (image.width, image.height)).max(axis=1)
            if overstep.max() > BORDER_TOLERANCE:
                x, y = points[overstep.argmax()]
                return (
                    f"{side} {what}: ({x:g}, {y:g}) lies outside image {image_id} "
                    f"of {image.width} x {image.height} pixels"
                )
    return None


def _write_tar(images: dict[str, _Image], pairs: list[PairRecord]) -> bytes:
    buffer = io.BytesIO()
    with webdataset.TarWriter(buffer, mtime=0, encoder=False) as tar:
        for number, (image_id, image) in enumerate(images.items()):
            facts = {
                "image_id": image_id,
                "width": image.width,
                "height": image.height,
                "sha256": hashlib.sha256(image.data).hexdigest(),
            }
            tar.write({"__key__": f"image-{number:06d}", _ending(image.data): image.data, "json": _json(facts)})
        for number, pair in enumerate(pairs):
            tar.write({"__key__": f"pair-{number:06d}", "json": _json(pair_to_json(pair))})
    return buffer.getvalue()


def _write_index(tar: bytes, images: dict[str, _Image], pairs: list[PairRecord]) -> bytes:
    entries = []
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            key, _, ending = member.name.partition(".")
            kind, _, number = key.partition("-")
            if kind == "image" and ending == "json":
                continue
            data = tar[member.offset_data : member.offset_data + member.size]
            place = (member.offset_data, member.size, hashlib.sha256(data).hexdigest())
            if kind == "image":
                image_id, image = list(images.items())[int(number)]
                entries.append(IndexEntry("image", image_id, *place, image.width, image.height))
            else:
                entries.append(IndexEntry("pair", pairs[int(number)].pair_id, *place))
    return _json({"tar_size": len(tar), "entries": [dataclasses.asdict(entry) for entry in entries]})


def _ending(data: bytes) -> str:
    return next((ending for magic, ending in _ENDINGS if data.startswith(magic)), "tiff")


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def pair_to_json(pair: PairRecord) -> dict[str, Any]:
    """A pair record as plain JSON values, without the fields that are empty."""
    fields: dict[str, Any] = {}
    for name in _PAIR_FIELDS:
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

    Raises:
        InputError: not a pair record.
    """
    try:
        fields = dict(value)
        unknown = set(fields) - _PAIR_FIELDS
        if unknown:
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
        for name in _POINT_FIELDS:
            if name in fields:
                fields[name] = np.array(fields[name], dtype=np.float32).reshape(-1, 2)
        for name in ("source_box", "target_box"):
            if name in fields:
                x0, y0, x1, y1 = map(float, fields[name])
                fields[name] = (x0, y0, x1, y1)
        if not all(isinstance(fields.get(name), str) for name in ("pair_id", "category", "source", "target")):
            raise ValueError("pair_id, category, source and target must be text")
        fields["keypoint_names"] = tuple(map(str, fields.get("keypoint_names", ())))
        return PairRecord(**fields)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: not a pair record ({error})") from error


class Shard:
    """Reads a shard at any place through its index; opens the tar anew for each read, so it travels to workers.

    Args:
        tar: path of the tar.
        index: path of its index.

    Raises:
        InputError: the tar is missing or shorter or longer than its index says, or the index is damaged.
    """

    def __init__(self, tar: str | Path, index: str | Path) -> None:
        self.paths = (str(tar), str(index))
        try:
            content = json.loads(Path(index).read_bytes())
            entries = [IndexEntry(**entry) for entry in content["entries"]]
            expected = int(content["tar_size"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"shard index {index}: damaged ({error})") from error
        size = Path(tar).stat().st_size if Path(tar).is_file() else -1
        if size != expected:
            raise InputError(f"shard {tar}: {size} bytes, its index says {expected}; write it again")
        self._images = {entry.id: entry for entry in entries if entry.kind == "image"}
        self._pairs = [entry for entry in entries if entry.kind == "pair"]

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def image_ids(self) -> list[str]:
        """Ids of the images, in the tar's order."""
        return list(self._images)

    @cached_property
    def pairs(self) -> list[PairRecord]:
        """All pairs, in order."""
        return [self.pair(number) for number in range(len(self))]

    def pair(self, number: int) -> PairRecord:
        """The pair with this number, from 0."""
        entry = self._pairs[number]
        where = f"shard {self.paths[0]}, pair {entry.id}"
        return pair_from_json(json.loads(self._read(entry)), where)

    def image_bytes(self, image_id: str) -> bytes:
        """An image's encoded bytes."""
        return self._read(self._images[image_id])

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(width, height) of an image as decoded, in pixels."""
        entry = self._images[image_id]
        return entry.width, entry.height

    def image_digest(self, image_id: str) -> str:
        """sha256 of an image's encoded bytes."""
        return self._images[image_id].sha256

    def _read(self, entry: IndexEntry) -> bytes:
        with Path(self.paths[0]).open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise InputError(f"shard {self.paths[0]}: {entry.kind} {entry.id!r} is damaged; write the shard again")
        return data
