"""Texts keep the secrets of URIs to themselves, and such URIs are refused."""

from __future__ import annotations

import json
import pickle
import time

import pytest

from dhpf.errors import InputError, redacted, require_no_credentials, shown

HOLD_SECRETS = {
    "s3://KEY:hush@b/x": "s3://...@b/x",
    "s3://KEY:hu/sh@b/x": "s3://...@b/x",  # keys of S3 have slashes in them
    "s3://KEY:h/u+/sh@b/x@2.jpg": "s3://...@b/x@2.jpg",
    "s3://KEY:hush%40b/x%40y": "s3://...%40b/x%40y",
    "s3:/KEY:hu/sh@b/x": "s3:/...@b/x",  # as a path
    "s3://b/x?endpoint_override=KEY:hush@h:33&scheme=http": "s3://b/x?endpoint_override=...@h:33&scheme=http",
    "http://hush@h": "http://...@h",
    "http://me:hush@h:5000/x": "http://...@h:5000/x",
    "postgresql+psycopg2://me:hu@sh@h/db": "postgresql+psycopg2://...@h/db",
    "postgresql://h/db?user=me&password=hush&x=1": "postgresql://h/db?user=me&password=...&x=1",
    "https://b/x?X-Amz-Signature=hush&X-Amz-Credential=hush": "https://b/x?X-Amz-Signature=...&X-Amz-Credential=...",
    "two: 's3://KEY:hush@b/x', http://me:hush@h": "two: 's3://...@b/x', http://...@h",
}

HOLD_NONE = (
    *("s3://bucket/a@2x.jpg", "s3://bucket/a b@c", "s3://b/x?endpoint_override=h:33&scheme=http", "s3://b:9000/x@y"),
    *("http://h:5000/x@y", "models:/dhpf@champion", "models:/dhpf/3", "sqlite:////tmp/u:p@x/mlflow.db"),
    *("/a:/b@c", "a=1, b=2 x@y", "file:///x/y@z"),
)


@pytest.mark.parametrize(("text", "kept"), HOLD_SECRETS.items())
def test_secrets_of_uris_are_left_out_and_refused(text: str, kept: str) -> None:
    assert redacted(text) == kept == redacted(kept)
    assert str(InputError(f"{text} is bad")) == f"{kept} is bad"
    for value in (text, [1, text], {"a": {"b": text}}, {text: 1}):
        with pytest.raises(InputError, match=r"place.*: holds credentials, .*; mend it") as refused:
            require_no_credentials("place", value, "mend it")
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize("text", HOLD_NONE)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert redacted(text) == text
    assert redacted(f'{{"a":"http://h","b":"{text}"}}') == f'{{"a":"http://h","b":"{text}"}}'
    require_no_credentials("place", {"a": [text]}, "")


@pytest.mark.parametrize("quote", "'\" ")
def test_a_password_with_quotes_is_refused_without_a_part_of_it(quote: str) -> None:
    with pytest.raises(InputError) as refused:
        require_no_credentials("--tracking", f"http://me:hush{quote}hush@h/", "")
    assert "hush" not in str(refused.value)


def test_an_error_crosses_processes() -> None:
    class_, text = type(InputError("a")), "s3://...@b"
    there = pickle.loads(pickle.dumps(InputError("s3://KEY:hush@b")))
    assert type(there) is class_ and str(there) == text


@pytest.mark.parametrize("text", ["s3://" + "a:" * 50_000, "s3://a:" + "@b" * 50_000, "a:/" * 50_000, ":/" * 50_000])
def test_a_hostile_text_takes_no_time(text: str) -> None:
    begun = time.monotonic()
    redacted(text + "?token" * 10_000)
    assert time.monotonic() - begun < 5


def test_what_a_terminal_obeys_is_written_out_and_json_stays_json() -> None:
    hostile = "a\x1b[2J\x07\x9b1m\u202egpj\u2028\udce9\r\x00"
    written = "a\\u001b[2J\\u0007\\u009b1m\\u202egpj\\u2028\\udce9\\u000d\\u0000"
    assert shown(hostile) == written == shown(written)
    assert json.loads(shown(json.dumps({hostile: hostile}, ensure_ascii=False))) == {hostile: hostile}
    assert shown("two\nlines\tof \u00e9\u4e2d\U0001f600") == "two\nlines\tof \u00e9\u4e2d\U0001f600"
    assert shown("s3://KEY:hu\x1csh@b/x") == "s3://...@b/x", "though the character ends a word"
