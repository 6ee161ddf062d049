"""Shards: a block as a webdataset tar with each image once, and an index by which it is read at any place.

Members are image-000003.jpg with image-000003.json (id, size, digest), then pair-000007.json. Bytes depend on the
block alone. Tar and index are untrusted: only images and JSON pairs are read, each checked, and what the index does
not name is never looked at; nothing is unpickled.
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

from dhpf.errors import InputError
from dhpf.frame import lies_outside
from dhpf.images import ImageError, decoded, printable, require_text
from dhpf.manifest import REPAIR, Damaged
from dhpf.planning.blocks import Block
from dhpf.records import PairRecord, Rejection
from dhpf.shards.pair_json import pair_from_json, pair_to_json, parse_json
from dhpf.storage import Location, is_uri, location_of
from dhpf.storage.copies import forget_copy, read_part
from dhpf.storage.seal import sealed, unsealed

os.environ.setdefault("WDS_SECURE", "1")  # webdataset reads it on import: no pickles, no shell
import webdataset  # noqa: E402

_ENDINGS = (
    *((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"BM", "bmp"), (b"GIF8", "gif")),
    *((b"\0\0\0\x0cjP  ", "jp2"), (b"\xff\x4f\xff\x51", "j2k")),
)


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

    def __post_init__(self) -> None:
        numbers = (self.offset, self.size, self.width, self.height)
        if self.kind not in ("image", "pair"):
            raise ValueError(f"unknown kind of member {self.kind!r}")
        if not (isinstance(self.id, str) and isinstance(self.sha256, str)):
            raise ValueError("id and sha256 must be text")
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("offset, size, width and height must be whole numbers, not negative")


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
            rejections.append(Rejection(pair.pair_id, printable(pair.source), printable(pair.target), reason))
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
            require_text(image_id)
            data = read(image_id)
            with decoded(data, image_id) as image:
                images[image_id] = _Image(data, *image.size)
        except ImageError as error:
            broken[image_id] = str(error)
    return images, broken


def _unusable(pair: PairRecord, images: dict[str, _Image], broken: dict[str, str]) -> str | None:
    for image_id in (pair.source, pair.target):
        if image_id in broken:
            return broken[image_id]
    for side, image_id in (("source", pair.source), ("target", pair.target)):
        image = images[image_id]
        for what in ("keypoints", "outline", "box"):
            values = getattr(pair, f"{side}_{what}")
            if values is None or not len(values):
                continue
            points = np.reshape(values, (-1, 2))  # a box is two points
            reason = lies_outside(points, (image.width, image.height), image_id)
            if reason is not None:
                return f"{side} {what}: {reason}"
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
            digest = hashlib.sha256(data).hexdigest()
            if kind == "image":
                member_id, image = list(images.items())[int(number)]
                width, height = image.width, image.height
            else:
                member_id, width, height = pairs[int(number)].pair_id, 0, 0
            entries.append(IndexEntry(kind, member_id, member.offset_data, member.size, digest, width, height))
    return sealed(_json({"tar_size": len(tar), "entries": [dataclasses.asdict(entry) for entry in entries]}))


def _ending(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "avif" if data[8:12] in (b"avif", b"avis") else "heic"
    return next((ending for magic, ending in _ENDINGS if data.startswith(magic)), "tiff")


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


class Shard:
    """Reads a shard at any place through its index; opens the tar anew for each read, so it travels to workers.

    Args:
        tar: location of the tar.
        index: location of its index.
        content: the index, where it has been read already.

    Raises:
        InputError: the tar is missing or shorter or longer than its index says, or the index is damaged. What is in a
            store is not asked for before it is read.
    """

    def __init__(self, tar: str | Path | Location, index: str | Path | Location, content: bytes | None = None) -> None:
        self.paths = (str(tar), str(index))
        entries, self._tar_size = _read_index(location_of(index), content)
        if not is_uri(str(tar)):
            size = location_of(tar).size()
            if size != self._tar_size:
                found = "is not there" if size is None else f"{size} bytes"
                raise Damaged(f"shard {tar}: {found}, its index says {self._tar_size} bytes; {REPAIR}")
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
        """The pair with this number, from 0.

        Raises:
            InputError: it is damaged, no pair record, or names an image that the shard does not hold.
        """
        entry = self._pairs[number]
        where = f"shard {self.paths[0]}, pair {entry.id!r}"
        pair = pair_from_json(parse_json(self._read(entry), where), where)
        for image_id in (pair.source, pair.target):
            if image_id not in self._images:
                raise InputError(f"{where}: image {image_id!r} is not in the shard; write the shard again")
        return pair

    def image_bytes(self, image_id: str) -> bytes:
        """An image's encoded bytes.

        Raises:
            InputError: they are damaged.
        """
        return self._read(self._images[image_id])

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(width, height) of an image as decoded, in pixels."""
        entry = self._images[image_id]
        return entry.width, entry.height

    def image_digest(self, image_id: str) -> str:
        """sha256 of an image's encoded bytes."""
        return self._images[image_id].sha256

    def _read(self, entry: IndexEntry) -> bytes:
        tar = location_of(self.paths[0])
        data = read_part(tar, self._tar_size, entry.offset, entry.size)
        if _is_damaged(data, entry):  # this machine's copy of an object may be, rather than the object
            forget_copy(tar)
            data = read_part(tar, self._tar_size, entry.offset, entry.size)
        if _is_damaged(data, entry):
            raise Damaged(f"shard {tar}: {entry.kind} {entry.id!r} is damaged; {REPAIR}")
        return data


def _is_damaged(data: bytes, entry: IndexEntry) -> bool:
    return hashlib.sha256(data).hexdigest() != entry.sha256


def _read_index(place: Location, content: bytes | None) -> tuple[list[IndexEntry], int]:
    """The entries of an index, and the size of its tar in bytes."""
    try:
        index = parse_json(unsealed(place.read() if content is None else content), f"shard index {place}")
        entries = [IndexEntry(**entry) for entry in index["entries"]]
        tar_size = index["tar_size"]
        if type(tar_size) is not int:
            raise ValueError(f"tar_size is {tar_size!r}, not a whole number")
        beyond = next((entry.id for entry in entries if entry.offset + entry.size > tar_size), None)
        if beyond is not None:
            raise ValueError(f"{beyond!r} lies beyond the end of the tar")
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"shard index {place}: damaged ({error}); {REPAIR}") from error
    return entries, tar_size
