from pathlib import Path

import pytest

from dhpf.storage import Location, location_of, many
from dhpf.storage.many import find_all
from infra.s3_server import Bucket


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_many_are_read_in_order(kind: str, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_BEFOREHAND", 7)
    root: Location = location_of(str(tmp_path / "many") if kind == "folder" else bucket.uri("many"))
    for number in range(20):
        (root / f"{number}").put(b"%d" % number)
    found = list(find_all(root / f"{number}" for number in range(21)))
    assert found == [b"%d" % number for number in range(20)] + [None]
    assert list(find_all([])) == []
