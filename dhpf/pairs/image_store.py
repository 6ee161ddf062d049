"""Lists and reads a collection's images, which lie in a folder or in a bucket of an S3 store.

An image's id is its path below the collection's root, with forward slashes. A bucket is named as in dhpf.object_store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from pyarrow import fs

from dhpf.errors import InputError
from dhpf.images import EXTENSIONS, ImageError
from dhpf.object_store import first_line, is_uri, open_store, require_uri
from dhpf.pairs.source import read_inside, require_folder


class ImageStore(Protocol):
    """Images below one root."""

    def ids(self) -> list[str]:
        """Ids of the images, sorted; hidden ones are left out."""

    def num_other_files(self) -> int:
        """How many files below the root are neither images nor hidden."""

    def read(self, image_id: str) -> bytes:
        """The bytes of an image's file.

        Raises:
            ImageError: no such image, or it lies outside the root.
        """

    def size(self, image_id: str) -> int:
        """Size of an image's file in bytes."""


def open_image_store(root: str, owner: str) -> ImageStore:
    """The images below a folder or a URI.

    Args:
        owner: what has this root, as an error names it, such as "collection".

    Raises:
        InputError: no such folder, or a URI that cannot be used.
    """
    return BucketImages(root) if is_uri(root) else FolderImages(str(require_folder(root, owner)))


@dataclass(frozen=True)
class FolderImages:
    """Images below a folder; hidden files and links that lead out of it are left out."""

    root: str

    def ids(self) -> list[str]:
        root = Path(self.root)
        inside = root.resolve()
        found = []
        for path in self._shown():
            if _is_image(path.name) and (not path.is_symlink() or path.resolve().is_relative_to(inside)):
                found.append(path.relative_to(root).as_posix())
        return sorted(found)

    def num_other_files(self) -> int:
        return sum(not _is_image(path.name) for path in self._shown())

    def _shown(self) -> Iterator[Path]:
        for folder, subfolders, files in os.walk(self.root):
            subfolders[:] = [s for s in subfolders if _is_shown(s)]
            yield from (Path(folder) / name for name in files if _is_shown(name))

    def read(self, image_id: str) -> bytes:
        return read_inside(self.root, image_id)

    def size(self, image_id: str) -> int:
        return (Path(self.root) / image_id).stat().st_size


@dataclass(frozen=True)
class BucketImages:
    """Images below a prefix of a bucket; it can be sent to workers, because each process opens the bucket itself.

    Raises:
        InputError: a scheme that is not read, no bucket, or credentials in the URI.
    """

    uri: str

    def __post_init__(self) -> None:
        require_uri(self.uri, "collection")

    def ids(self) -> list[str]:
        return sorted(path.as_posix() for path in self._shown() if _is_image(path.name))

    def num_other_files(self) -> int:
        return sum(not _is_image(path.name) for path in self._shown())

    def _shown(self) -> Iterator[PurePosixPath]:
        """Paths of the files below the prefix that are not hidden."""
        store, prefix = open_store(self.uri, "collection")
        try:
            files = store.get_file_info(fs.FileSelector(prefix, recursive=True))
        except FileNotFoundError as error:
            raise InputError(f"collection {self.uri!r}: no such bucket or prefix") from error
        except OSError as error:
            raise InputError(f"collection {self.uri!r}: cannot be listed ({first_line(error)})") from error
        paths = (PurePosixPath(file.path).relative_to(prefix) for file in files if file.is_file)
        return (path for path in paths if all(map(_is_shown, path.parts)))

    def read(self, image_id: str) -> bytes:
        store, prefix = open_store(self.uri, "collection")
        try:
            with store.open_input_file(f"{prefix}/{image_id}") as file:
                data: bytes = file.read()
        except FileNotFoundError as error:
            raise ImageError(f"image {image_id}: no such object") from error
        except OSError as error:
            if "ACCESS_DENIED" in str(error):
                raise ImageError(f"image {image_id}: the store denies access to it") from error
            # Not the image's fault: the run stops, and goes on from here when it is started again.
            raise InputError(
                f"collection {self.uri!r}: the store does not give {image_id!r} ({first_line(error)}); "
                "the same command goes on from here"
            ) from error
        return data

    def size(self, image_id: str) -> int:
        store, prefix = open_store(self.uri, "collection")
        return int(store.get_file_info(f"{prefix}/{image_id}").size or 0)


def _is_shown(name: str) -> bool:
    return not name.startswith(".")


def _is_image(name: str) -> bool:
    return _is_shown(name) and PurePosixPath(name).suffix.lower() in EXTENSIONS
