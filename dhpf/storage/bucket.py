"""Objects in a bucket of an S3 store as locations.

A URI names an object or a prefix: s3://BUCKET/KEY. For a store that is not Amazon's, a query behind it says where that
is, as pyarrow and Ray Train take it, too: ?endpoint_override=HOST:PORT&scheme=http&region=NAME.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from dhpf.errors import InputError, require_no_credentials
from dhpf.regular_files import Stamp, UnreadableFile, require_as_listed, require_size_within
from dhpf.storage.credentials import profile_credentials
from dhpf.storage.location import Entry, Location, gone

SCHEME = "s3"

QUERY_FIELDS = ("endpoint_override", "scheme", "region")

PATIENCE_VARIABLE = "DHPF_S3_PATIENCE"
"""Environment variable: seconds for which a store that does not answer is asked again; 120 if it is not set."""

SILENT_SECONDS = 20.0
"""How long a request may be without any byte of an answer before it is made again."""

MOST_READS = 5
"""How often an object is read whose content is not what its ETag says, before the store is held to be wrong."""

_MD5 = re.compile('"?([0-9a-f]{32})"?')
"""The ETag of an object that was put at once, in most stores: the MD5 of its content."""

_SLOWEST_ANSWER = timedelta(minutes=10)
"""How long an answer may take that keeps coming: of a large object, over a slow line."""

_DELETED_AT_ONCE = 1000

_DENIED = "status code: 403"
"""What the store's answer to a listing holds, whose error has no class of its own."""


class AccessDenied(InputError):
    """The store knows the credentials, or misses them, and refuses."""


def is_uri(text: str) -> bool:
    """Whether this names something in a store rather than a path."""
    return "://" in text


def split_uri(uri: str) -> SplitResult:
    """The parts of a URI; raises InputError where it has none, such as for an open bracket in the host's place."""
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise InputError(f"{uri!r}: not a URI ({error})") from error


def require_uri(uri: str, what: str) -> None:
    """Refuses a URI that cannot be used.

    Args:
        what: what the URI is of, as an error names it, such as "collection".

    Raises:
        InputError: a scheme that is not read, no bucket, credentials in the URI, or an unknown field of the query.
    """
    parts = split_uri(uri)
    if parts.scheme != SCHEME:
        raise InputError(f"{what} {uri!r}: {parts.scheme}:// is not read; give a folder, or {SCHEME}://")
    if not parts.netloc:
        raise InputError(f"{what} {uri!r}: names no bucket; write {SCHEME}://BUCKET/PREFIX")
    unknown = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if name not in QUERY_FIELDS]
    if unknown:
        where = uri.partition("?")[0]
        raise InputError(
            f"{what} {where!r}: not a URI that can be used, its query has {unknown[0]!r}; "
            f"it may have {', '.join(QUERY_FIELDS)}"
        )
    require_no_credentials(what, uri, "give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")


@dataclass(frozen=True)
class BucketLocation(Location):
    """An object or a prefix of a bucket; each process opens the bucket itself, once.

    Raises:
        InputError: the URI cannot be used.
    """

    uri: str

    def __post_init__(self) -> None:
        require_uri(self.uri, "location")

    def __truediv__(self, key: str) -> BucketLocation:
        if key == ".":
            return self
        parts = urlsplit(self.uri)
        return BucketLocation(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(key)}").geturl())

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        return self._key.rpartition("/")[2]

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.uri).path).strip("/")

    @property
    def _store(self) -> S3Store:
        parts = urlsplit(self.uri)
        return _opened(parts.netloc, parts.query)

    def put(self, content: bytes) -> None:
        self._put(content)

    def put_file(self, path: Path) -> None:
        self._put(path)

    def _put(self, content: bytes | Path) -> None:
        try:
            obstore.put(self._store, self._key, content)
        except (BaseError, ValueError) as error:
            raise self._error(error) from error

    def put_if_absent(self, content: bytes) -> bool:
        deadline = time.monotonic() + _patience()
        while True:
            try:
                obstore.put(self._store, self._key, content, mode="create", use_multipart=False)
                return True
            except AlreadyExistsError:
                return self.find() == content  # this caller's, if the answer to its first attempt was lost
            except (PermissionDeniedError, UnauthenticatedError, ValueError) as error:
                raise self._error(error) from error
            except BaseError as error:
                found = self.find()
                if found is not None:
                    return found == content
                if time.monotonic() > deadline:
                    raise self._error(error) from error
                time.sleep(1)

    def find(self, limit: int | None = None, listed: Stamp | None = None) -> bytes | None:
        before: bytes | None = None
        try:
            for _ in range(MOST_READS):
                found = obstore.get(self._store, self._key)
                stamp = _stamp_of(found.meta)
                require_size_within(stamp.size, self.uri, limit)
                require_as_listed(stamp, self.uri, listed)
                content = bytes(found.bytes())
                # Where ETags are no MD5s, as with some encryption, the same content comes twice.
                if _is_as_put(content, found.meta["e_tag"]) or content == before:
                    return content
                before = content
        except UnreadableFile:
            raise
        except FileNotFoundError:
            return None
        except (BaseError, ValueError) as error:
            raise self._error(error) from error
        raise InputError(
            f"{self.uri}: read {MOST_READS} times, and each time with other bytes, none of which the store has; look "
            "for what changes them on the way"
        )

    def read_range(self, begin: int, size: int) -> bytes:
        if not size:
            return b""
        try:
            return bytes(obstore.get_range(self._store, self._key, start=begin, length=size))
        except FileNotFoundError as error:
            raise gone(self) from error
        except (BaseError, ValueError) as error:
            there = self.size()  # a range that begins behind the end is refused
            if there is not None and begin >= there:
                return b""
            raise self._error(error) from error

    def stamp(self) -> Stamp | None:
        try:
            return _stamp_of(obstore.head(self._store, self._key))
        except FileNotFoundError:
            return None
        except (BaseError, ValueError) as error:
            raise self._error(error) from error

    def entries(self, *, hidden: bool = False) -> Iterator[Entry]:
        prefix = self._key
        found = []
        try:
            for page in obstore.list(self._store, f"{prefix}/" if prefix else None):
                for entry in page:
                    key = str(entry["path"])[len(prefix) :].lstrip("/")
                    if hidden or not key.rpartition("/")[2].startswith("."):
                        found.append(Entry(key, *_stamp_of(entry)))
        except FileNotFoundError as error:
            raise InputError(f"{self.uri}: no such bucket") from error
        except (BaseError, ValueError) as error:
            raise self._error(error) from error
        return iter(sorted(found, key=lambda entry: entry.key))

    def delete(self) -> None:
        try:
            obstore.delete(self._store, self._key)
        except FileNotFoundError:
            return
        except (BaseError, ValueError) as error:
            raise self._error(error) from error

    def delete_all(self) -> None:
        keys = [f"{self._key}/{entry.key}".lstrip("/") for entry in self.entries(hidden=True)]
        try:
            for begin in range(0, len(keys), _DELETED_AT_ONCE):
                obstore.delete(self._store, keys[begin : begin + _DELETED_AT_ONCE])
        except (BaseError, ValueError) as error:
            raise self._error(error) from error
        self.delete()

    def _error(self, error: Exception) -> InputError:
        if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or _DENIED in str(error):
            return AccessDenied(
                f"{self.uri}: the store denies access to it ({first_line(error)}); "
                "give this machine credentials that may read and write there"
            )
        if isinstance(error, ValueError):
            return InputError(f"{self.uri}: not a key that can be used ({first_line(error)})")
        return InputError(
            f"{self.uri}: the store does not answer as it should ({first_line(error)}); "
            "the same command goes on from here"
        )


def _stamp_of(facts: Mapping[str, Any]) -> Stamp:
    """The stamp of an object; where its store gives no ETag the time of its change counts."""
    told = str(facts["e_tag"] or facts["last_modified"])
    return Stamp(int(facts["size"]), int.from_bytes(hashlib.blake2b(told.encode(), digest_size=7).digest()))


def first_line(error: Exception) -> str:
    """What an error says, without the rest of the store's page."""
    text = str(error).partition("\n")[0].rstrip(".")
    return text if len(text) <= 300 else f"{text[:297]}..."


def _is_as_put(content: bytes, etag: str | None) -> bool:
    """Whether content is what the ETag says; true where it says nothing."""
    digest = _MD5.fullmatch(etag or "")
    return digest is None or hashlib.md5(content, usedforsecurity=False).hexdigest() == digest[1]


def _patience() -> float:
    text = os.environ.get(PATIENCE_VARIABLE, "120")
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{PATIENCE_VARIABLE} {text!r}: not a number of seconds") from error


@functools.cache
def _opened(bucket: str, query: str) -> S3Store:
    fields = dict(parse_qsl(query))
    scheme = fields.get("scheme", "https")
    settings: dict[str, str] = dict(profile_credentials())
    if "region" in fields:
        settings["region"] = fields["region"]
    if "endpoint_override" in fields:
        settings["endpoint"] = f"{scheme}://{fields['endpoint_override']}"
    return S3Store(
        bucket,
        client_options={
            "allow_http": scheme == "http",
            "connect_timeout": "10s",
            "read_timeout": timedelta(seconds=SILENT_SECONDS),
            "timeout": _SLOWEST_ANSWER,
        },
        retry_config={"max_retries": 100, "retry_timeout": timedelta(seconds=_patience())},
        **settings,  # type: ignore[arg-type]  # obstore declares each key by itself
    )
