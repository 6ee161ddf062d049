"""Reads, writes and removes objects in a bucket of an S3 store.

A URI names an object: s3://BUCKET/KEY. For a store that is not Amazon's, a query behind it says where that is, as
pyarrow takes it: ?endpoint_override=HOST:PORT&scheme=http&region=NAME. Credentials come from the environment, never
from the URI.
"""

from __future__ import annotations

import functools
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from dhpf.errors import InputError

SCHEME = "s3"


def is_uri(text: str) -> bool:
    """Whether this names something in a store rather than a path."""
    return "://" in text


def require_uri(uri: str, what: str) -> None:
    """Refuses a URI that cannot be used.

    Args:
        what: what the URI is of, as an error names it, such as "collection".

    Raises:
        InputError: a scheme that is not read, no bucket, or credentials in the URI.
    """
    parts = urlsplit(uri)
    if parts.scheme != SCHEME:
        raise InputError(f"{what} {uri!r}: {parts.scheme}:// is not read; give a folder, or {SCHEME}://")
    if "@" in parts.netloc:
        where = uri.replace(parts.netloc, f"...@{parts.netloc.rpartition('@')[2]}")
        raise InputError(
            f"{what} {where!r}: holds credentials, which logs would show; "
            "give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
    if not parts.netloc:
        raise InputError(f"{what} {uri!r}: names no bucket; write {SCHEME}://BUCKET/PREFIX")


def open_store(uri: str, what: str) -> tuple[fs.FileSystem, str]:
    """The store that a URI names, opened once in each process, and the path in it, which begins with the bucket.

    Raises:
        InputError: the URI cannot be used.
    """
    parts = urlsplit(uri)
    try:
        store = _opened(f"{SCHEME}://{parts.netloc}?{parts.query}" if parts.query else f"{SCHEME}://{parts.netloc}")
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{what} {uri!r}: not a URI that can be used ({first_line(error)})") from error
    return store, f"{parts.netloc}{unquote(parts.path)}".rstrip("/")


@functools.cache
def _opened(bucket: str) -> fs.FileSystem:
    return fs.FileSystem.from_uri(bucket)[0]


def object_uri(folder: str, key: str) -> str:
    """The URI of what has this key below a URI."""
    parts = urlsplit(folder)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(key)}").geturl()


def read_object(uri: str, begin: int, size: int) -> bytes:
    """Bytes of an object from `begin` on; fewer where it ends.

    Raises:
        InputError: no such object, or the store does not give it.
    """
    store, path = open_store(uri, "object")
    try:
        with store.open_input_file(path) as file:
            file.seek(begin)
            data: bytes = file.read(size)
    except FileNotFoundError as error:
        raise InputError(f"object {uri!r}: is gone from the store") from error
    except OSError as error:
        raise _away(uri, error) from error
    return data


def put_object(uri: str, content: bytes) -> None:
    """Writes an object; nothing may refer to it before that has succeeded, because a part may be there if it fails.

    Raises:
        InputError: the store does not take it.
    """
    store, path = open_store(uri, "object")
    try:
        with store.open_output_stream(path) as stream:
            stream.write(content)
    except OSError as error:
        raise _away(uri, error) from error


def object_size(uri: str) -> int:
    """Bytes of an object; -1 where there is none.

    Raises:
        InputError: the store does not answer.
    """
    store, path = open_store(uri, "object")
    try:
        info = store.get_file_info(path)
    except OSError as error:
        raise _away(uri, error) from error
    return int(info.size) if info.is_file else -1


def remove_object(uri: str) -> None:
    """Removes an object, if it is there.

    Raises:
        InputError: the store does not remove it.
    """
    store, path = open_store(uri, "object")
    try:
        store.delete_file(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _away(uri, error) from error


def first_line(error: Exception) -> str:
    """What an error says, without the rest of the store's page."""
    return str(error).partition("\n")[0].rstrip(".")


def _away(uri: str, error: Exception) -> InputError:
    return InputError(
        f"object {uri!r}: the store does not answer as it should ({first_line(error)}); "
        "the same command goes on from here"
    )
