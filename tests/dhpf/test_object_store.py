"""Objects in a bucket of a real S3 server; pairs/test_image_folder.py tests which URIs are refused."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from dhpf.errors import InputError
from dhpf.object_store import object_size, object_uri, put_object, read_object, remove_object

if TYPE_CHECKING:
    from tests.conftest import Bucket


def test_an_object_is_put_read_in_parts_and_removed(bucket: Bucket) -> None:
    uri = object_uri(bucket.uri("a folder"), "the #1 ?/x.tar")
    assert object_size(uri) == -1
    put_object(uri, bytes(range(200)))
    assert bucket.files.get_file_info(f"{bucket.name}/a folder/the #1 ?/x.tar").size == object_size(uri) == 200
    assert read_object(uri, 10, 5) == bytes(range(10, 15)) and read_object(uri, 190, 50) == bytes(range(190, 200))
    remove_object(uri)
    remove_object(uri)
    with pytest.raises(InputError, match=r"the%20%231%20%3F/x.tar.* is gone from the store"):
        read_object(uri, 0, 1)


@pytest.mark.chaos
def test_a_store_that_is_away_is_said(mortal_bucket: Bucket) -> None:
    uri = object_uri(mortal_bucket.uri("away"), "x.tar")
    put_object(uri, b"here")
    mortal_bucket.server.send_signal(signal.SIGKILL)
    mortal_bucket.server.wait(timeout=30)
    for work in (lambda: read_object(uri, 0, 4), lambda: put_object(uri, b"there"), lambda: remove_object(uri)):
        with pytest.raises(InputError, match="does not answer as it should .*; the same command goes on from here"):
            work()
