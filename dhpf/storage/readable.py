"""A location as a file object that is read at any place, for libraries that want one."""

from __future__ import annotations

import io

from dhpf.storage.location import Location, gone


class ReadableLocation(io.RawIOBase):
    """Reads of a location just the bytes that are asked for.

    Raises:
        InputError: there is nothing.
    """

    def __init__(self, place: Location) -> None:
        size = place.size()
        if size is None:
            raise gone(place)
        self._place, self._size, self._at = place, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = begin + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._size - self._at if size is None or size < 0 else size
        data = self._place.read_range(self._at, max(wanted, 0))
        self._at += len(data)
        return data
