"""Seals on JSON records: a record's last field is the digest of all bytes before it, so that it tells of any damage.

A record without a seal, as version 0.1 wrote them, is taken as it is.
"""

from __future__ import annotations

import hashlib

_BEFORE, _AFTER = b', "sha256": "', b'"}'

_DIGEST_SIZE = 64

_LEAST_LIKENESS = 8
"""So many of a seal's fixed bytes are there by chance in no record; where one of them differs, the seal is damaged."""


def sealed(record: bytes) -> bytes:
    """A JSON object with its seal.

    Args:
        record: an object with at least one field.
    """
    content = record.rstrip()
    if not content.endswith(b"}") or content.endswith(b"{}"):
        raise ValueError("only an object with fields can be sealed")
    content = content[:-1].rstrip()
    return content + _BEFORE + _digest(content) + _AFTER


def unsealed(record: bytes) -> bytes:
    """The JSON object without its seal; as it is where it has none.

    Raises:
        ValueError: the seal is broken: the record is not as it was written.
    """
    size = len(_BEFORE) + _DIGEST_SIZE + len(_AFTER)
    content, seal = record[:-size], record[-size:]
    frame, wanted = seal[: len(_BEFORE)] + seal[-len(_AFTER) :], _BEFORE + _AFTER
    if sum(one == other for one, other in zip(frame, wanted, strict=False)) < _LEAST_LIKENESS:
        return record
    if seal != _BEFORE + _digest(content) + _AFTER:
        raise ValueError("its seal is broken")
    return content + b"}"


def is_left_of(damaged: bytes, record: bytes) -> bool:
    """Whether a damaged record was this sealed one: its seal is left, or its content and most of its seal."""
    size = len(_BEFORE) + _DIGEST_SIZE + len(_AFTER)
    seal, wanted = damaged[-size:], record[-size:]
    if seal == wanted:
        return True
    num_left = sum(one == other for one, other in zip(seal, wanted, strict=False))
    return damaged[:-size] == record[:-size] and num_left > size // 2


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
