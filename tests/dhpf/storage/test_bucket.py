"""Buckets that refuse, that are away, and that lose an answer; what they share with folders: test_location.py."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.storage.bucket import PATIENCE_VARIABLE, AccessDenied, BucketLocation, require_uri
from infra.flaky_proxy import Fault, busy, flaky_proxy

if TYPE_CHECKING:
    from infra.s3_server import Bucket


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/x", "work folder 'gs://bucket/x': gs:// is not read; give a folder, or s3://"),
        ("s3:///x", "names no bucket"),
        ("s3://key:hush@bucket/x", r"'s3://\.\.\.@bucket/x': holds credentials"),
        ("s3://bucket/x?secret_key=hush", "its query has 'secret_key'; it may have endpoint_override, scheme, region"),
    ],
)
def test_an_unusable_uri_is_refused_without_its_secrets(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        require_uri(uri, "work folder")
    assert "hush" not in str(error.value)


def test_keys_that_do_not_open_it_are_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = BucketLocation(bucket.uri("x").replace("us-east-1", "eu-west-1"))  # another store: opened anew
    for work in (refused.find, refused.size, lambda: refused.put(b""), lambda: refused.put_if_absent(b"1")):
        with pytest.raises(AccessDenied, match="the store denies access to it"):
            work()


@pytest.mark.chaos
def test_a_store_that_pauses_is_waited_for_and_one_that_is_gone_is_said(
    mortal_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "3")
    file = BucketLocation(mortal_bucket.uri("away/x.tar"))
    file.put(b"here")
    mortal_bucket.server.send_signal(signal.SIGSTOP)
    threading.Timer(4, mortal_bucket.server.send_signal, [signal.SIGCONT]).start()
    assert file.read() == b"here"
    mortal_bucket.server.send_signal(signal.SIGKILL)
    mortal_bucket.server.wait(timeout=30)
    attempts = (file.find, lambda: file.put(b"there"), lambda: file.put_if_absent(b"there"))
    for work in attempts:
        with pytest.raises(InputError, match="does not answer as it should .*; the same command goes on from here"):
            work()


def test_who_lost_the_answer_to_a_put_has_still_won(bucket: Bucket) -> None:
    """The object is there with the caller's own content: its first attempt came through, the answer did not."""
    bucket.put("lost/commit.json", b"mine")
    place = BucketLocation(bucket.uri("lost/commit.json"))
    assert place.put_if_absent(b"mine") and not place.put_if_absent(b"another's")


def test_a_key_that_no_bucket_takes_is_said(bucket: Bucket) -> None:
    with pytest.raises(InputError, match="x/a%09b.*: not a key that can be used"):
        (BucketLocation(bucket.uri("x")) / "a\tb").put(b"")


def test_a_store_that_refuses_every_third_request_for_now_gives_the_same(bucket: Bucket) -> None:
    """Some of the requests have been done when they are refused, so that a winner meets its own object."""
    endpoint = bucket.query.partition("endpoint_override=")[2].partition("&")[0]
    with flaky_proxy(endpoint, busy(0.3)) as (proxied, failures):
        folder = BucketLocation(bucket.uri("busy").replace(endpoint, proxied))
        for number in range(12):
            place = folder / f"{number}.json"
            assert place.put_if_absent(b"mine") and not place.put_if_absent(b"another's")
            place.put(b"renewed")
            assert place.read() == b"renewed" and place.read_range(2, 3) == b"new" and place.size() == 7
        assert [entry.key for entry in folder.entries()] == sorted(f"{number}.json" for number in range(12))
        folder.delete_all()
        assert list(folder.entries()) == []
    assert failures.num_failed > 12


@pytest.mark.parametrize("fault", ["stalled", "done and stalled", "cut", "flipped"])
def test_a_store_that_spoils_some_answers_gives_the_same(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """What does not come, ends too soon or holds other bits than were put is asked for again."""
    monkeypatch.setattr("dhpf.storage.bucket.SILENT_SECONDS", 1.0)
    endpoint = bucket.query.partition("endpoint_override=")[2].partition("&")[0]
    with flaky_proxy(endpoint, {fault: 0.4}) as (proxied, failures):
        folder = BucketLocation(bucket.uri("spoilt").replace(endpoint, proxied))
        for number in range(6):
            place, content = folder / f"{number}.bin", bytes(range(256)) * (40 + number)
            assert place.put_if_absent(b"mine") and not place.put_if_absent(b"another's")
            place.put(content)
            assert place.read() == content and place.size() == len(content)
    assert failures.counts[fault] >= 1


def test_a_store_whose_etags_are_no_digests_is_read(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    place = BucketLocation(bucket.uri("encrypted.bin"))
    place.put(b"content")
    monkeypatch.setattr("dhpf.storage.bucket._is_as_put", lambda content, etag: False)
    assert place.read() == b"content"


def test_content_that_never_comes_as_it_is_is_said(bucket: Bucket) -> None:
    endpoint = bucket.query.partition("endpoint_override=")[2].partition("&")[0]
    BucketLocation(bucket.uri("bent.bin")).put(bytes(1000))
    with flaky_proxy(endpoint, {"flipped": 1.0}) as (proxied, _):
        place = BucketLocation(bucket.uri("bent.bin").replace(endpoint, proxied))
        with pytest.raises(InputError, match="read 5 times, and each time with other bytes"):
            place.read()
