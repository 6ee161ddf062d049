import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from dhpf.data.blocks import Block, plan_blocks
from dhpf.data.shards import EncodedShard, Shard, encode_shard, pair_from_json, pair_to_json
from dhpf.errors import InputError
from dhpf.images import ImageError
from dhpf.records import PairRecord


def png(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {"a.b/é 1.png": png(1), "b": png(2), "c": png(3), "broken": png(4)[:200]}


def read(image_id: str) -> bytes:
    if image_id not in IMAGES:
        raise ImageError(f"image {image_id}: no such file")
    return IMAGES[image_id]


def points(*values: tuple[float, float]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(values, np.float32)


PAIRS = [
    PairRecord("1", "cat", "a.b/é 1.png", "b", points((1, 2), (39.5, 29)), points((3, 4), (5, 6.25))),
    PairRecord("2", "cat", "b", "c", mirrored=True, target_box=(1, 2, 3, 4), difficulty={"scale": 2}),
    PairRecord("3", "", "b", "broken"),
    PairRecord("4", "", "b", "missing"),
    PairRecord("5", "", "b", "c", points((1, 1)), points((43, 1))),
    PairRecord("6", "", "b", "c", points((1, 1)), points((41.5, 31))),
]


def block() -> Block:
    return next(plan_blocks(PAIRS, max_pairs=99, max_images=99))


@pytest.fixture
def encoded() -> EncodedShard:
    return encode_shard(block(), read)


def opened(encoded: EncodedShard, folder: Path) -> Shard:
    (folder / "shard.tar").write_bytes(encoded.tar)
    (folder / "index.json").write_bytes(encoded.index)
    return Shard(folder / "shard.tar", folder / "index.json")


def test_pairs_in_are_pairs_and_rejections(encoded: EncodedShard) -> None:
    assert encoded.num_pairs == 3
    reasons = {r.pair_id: r.reason for r in encoded.rejections}
    assert set(reasons) == {"3", "4", "5"}
    assert "damaged or truncated" in reasons["3"]
    assert "no such file" in reasons["4"]
    assert "(43, 1) lies outside image c of 40 x 30 pixels" in reasons["5"]


def test_each_image_is_there_once_and_as_it_was(encoded: EncodedShard, tmp_path: Path) -> None:
    shard = opened(encoded, tmp_path)
    assert shard.image_ids == ["a.b/é 1.png", "b", "c"]
    assert all(shard.image_bytes(image) == IMAGES[image] for image in shard.image_ids)
    assert shard.image_size("b") == (40, 30)
    assert shard.image_digest("c") == hashlib.sha256(IMAGES["c"]).hexdigest()


def test_records_come_back(encoded: EncodedShard, tmp_path: Path) -> None:
    shard = opened(encoded, tmp_path)
    assert [pair.pair_id for pair in shard.pairs] == ["1", "2", "6"]
    first, second = shard.pair(0), shard.pair(1)
    assert np.array_equal(first.source_keypoints, PAIRS[0].source_keypoints)  # type: ignore[arg-type]
    assert second.mirrored and second.target_box == (1, 2, 3, 4) and second.difficulty == {"scale": 2}
    assert second.source_keypoints is None


def test_the_same_block_gives_the_same_bytes(encoded: EncodedShard) -> None:
    again = encode_shard(block(), read)
    assert again.tar == encoded.tar
    assert again.index == encoded.index


def test_webdataset_reads_it(encoded: EncodedShard, tmp_path: Path) -> None:
    opened(encoded, tmp_path)
    samples = list(webdataset.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False))
    images = {json.loads(s["json"])["image_id"]: s["png"] for s in samples if "png" in s}
    assert images == {name: IMAGES[name] for name in ("a.b/é 1.png", "b", "c")}


def test_a_tar_cut_between_members_is_noticed(encoded: EncodedShard, tmp_path: Path) -> None:
    opened(encoded, tmp_path)
    with tarfile.open(tmp_path / "shard.tar") as archive:
        cut = archive.getmembers()[-1].offset
    with (tmp_path / "shard.tar").open("r+b") as file:
        file.truncate(cut)
    with pytest.raises(InputError, match="its index says"):
        Shard(tmp_path / "shard.tar", tmp_path / "index.json")


def test_a_flipped_byte_is_noticed(encoded: EncodedShard, tmp_path: Path) -> None:
    shard = opened(encoded, tmp_path)
    data = bytearray(encoded.tar)
    data[data.index(IMAGES["b"]) + 100] ^= 1
    (tmp_path / "shard.tar").write_bytes(bytes(data))
    with pytest.raises(InputError, match="'b' is damaged"):
        shard.image_bytes("b")
    assert shard.image_bytes("c") == IMAGES["c"]


def test_hostile_records_are_refused() -> None:
    good = pair_to_json(PAIRS[0])
    assert pair_from_json(good, "x").pair_id == "1"
    for hostile in ([1], {}, good | {"source": 3}, good | {"extra": 1}, good | {"source_keypoints": [["a", "b"]]}):
        with pytest.raises(InputError, match="x: not a pair record"):
            pair_from_json(hostile, "x")


def test_a_damaged_index_is_named(encoded: EncodedShard, tmp_path: Path) -> None:
    opened(encoded, tmp_path)
    for junk in (b"{", b"{}", b'{"entries": [{"kind": "image"}], "tar_size": 1}'):
        (tmp_path / "index.json").write_bytes(junk)
        with pytest.raises(InputError, match="index.json: damaged"):
            Shard(tmp_path / "shard.tar", tmp_path / "index.json")
