"""A sealed record tells of every flipped bit, and of every cut."""

from __future__ import annotations

import json

import pytest

from dhpf.storage.seal import is_left_of, sealed, unsealed

RECORD = json.dumps({"task": "block-000001", "files": {"a": {"size": 12}}}, indent=1).encode()


def test_a_sealed_record_is_json_and_gives_the_record_back() -> None:
    values = json.loads(sealed(RECORD))
    assert values.pop("sha256") and values == json.loads(RECORD)
    assert json.loads(unsealed(sealed(RECORD))) == json.loads(RECORD)


@pytest.mark.parametrize("record", [RECORD, b"{}", b"", b"[]", b"{", b'{"sha256": "of something"}'])
def test_a_record_without_a_seal_is_taken_as_it_is(record: bytes) -> None:
    assert unsealed(record) == record


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    whole = sealed(RECORD)
    damaged = [
        whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in range(8)
    ]
    for content in [*damaged, *(whole[:size] for size in range(1, len(whole)))]:
        with pytest.raises(ValueError):
            json.loads(unsealed(content))


def test_what_is_left_of_a_record_shows_what_it_was() -> None:
    whole, other = sealed(RECORD), sealed(RECORD.replace(b"12", b"13"))
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        assert is_left_of(damaged, whole) and not is_left_of(damaged, other)
    assert not is_left_of(b"", whole) and not is_left_of(whole[:-60], whole) and is_left_of(whole[30:], whole)
    assert not is_left_of(whole.replace(b"12", b"13"), other), "damage that makes another record of it"


@pytest.mark.parametrize("record", [b"{}", b"[1]", b""])
def test_what_is_no_object_with_fields_is_not_sealed(record: bytes) -> None:
    with pytest.raises(ValueError, match="an object with fields"):
        sealed(record)
