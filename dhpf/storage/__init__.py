"""Where bytes lie: folders of a file system and prefixes of buckets, behind one interface."""

from __future__ import annotations

from pathlib import Path

from dhpf.storage.bucket import BucketLocation, is_uri, split_uri
from dhpf.storage.file_system import FileLocation
from dhpf.storage.location import Entry, Location

__all__ = [
    "BucketLocation",
    "Entry",
    "FileLocation",
    "Location",
    "is_uri",
    "location_of",
    "parent_of",
    "split_uri",
]


def location_of(place: str | Path | Location) -> Location:
    """The location that a path or a URI names.

    Raises:
        InputError: a URI that cannot be used.
    """
    if isinstance(place, Location):
        return place
    if isinstance(place, str) and is_uri(place):
        return BucketLocation(place)
    return FileLocation(Path(place))


def parent_of(place: Location) -> Location:
    """The folder or the prefix that a location lies in, which is not a whole bucket."""
    if isinstance(place, FileLocation):
        return FileLocation(place.path.parent)
    path, mark, query = str(place).partition("?")
    return location_of(path.rstrip("/").rpartition("/")[0] + mark + query)
