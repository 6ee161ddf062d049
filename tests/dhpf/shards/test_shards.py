import hashlib
import io
import json
import multiprocessing
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from dhpf.errors import InputError
from dhpf.images import ImageError
from dhpf.pairs import open_pair_source
from dhpf.planning.blocks import Block, plan_blocks
from dhpf.records import PairRecord
from dhpf.shards.pair_json import pair_to_json
from dhpf.shards.shards import EncodedShard, Shard, encode_shard
from dhpf.storage.seal import sealed, unsealed


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


def test_a_box_outside_its_image_is_a_rejection() -> None:
    inside = PairRecord("in", "", "b", "c", target_box=(-1, 0, 41.5, 30))
    outside = PairRecord("out", "", "b", "c", source_box=(5, 5, 20, 33))
    encoded = encode_shard(Block("x", ("b", "c"), (inside, outside)), read)
    assert [r.pair_id for r in encoded.rejections] == ["out"]
    assert "source box: (20, 33) lies outside image b of 40 x 30 pixels" in encoded.rejections[0].reason


def test_a_block_of_rejections_alone_is_a_shard_without_pairs(tmp_path: Path) -> None:
    shard = opened(encode_shard(Block("x", ("b", "broken"), (PAIRS[2],)), read), tmp_path)
    assert len(shard) == 0 and shard.image_ids == [] and shard.pairs == []


def test_a_name_that_is_no_text_is_a_rejection_that_can_be_printed() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    encoded = encode_shard(Block("x", ("b", name), (PairRecord("1", "", "b", name),)), lambda _: IMAGES["b"])
    (rejection,) = encoded.rejections
    assert rejection.target == "caf\\udce9.png"
    assert rejection.reason.encode() == b"image caf\\udce9.png: its name is not UTF-8 text; rename the file"


def test_sizes_and_keypoints_are_of_the_image_as_people_see_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 40 x 30, to be turned by 90 degrees
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=exif)
    pair = PairRecord("1", "", "b", "turned", points((1, 1)), points((29, 39)))
    images = IMAGES | {"turned": buffer.getvalue()}
    shard = opened(encode_shard(Block("x", ("b", "turned"), (pair,)), images.__getitem__), tmp_path)
    assert shard.image_size("turned") == (30, 40)
    assert [p.pair_id for p in shard.pairs] == ["1"]


def test_a_shard_travels_to_another_process(encoded: EncodedShard, tmp_path: Path) -> None:
    shard = opened(encoded, tmp_path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(shard.image_bytes, ("b",)) == IMAGES["b"]


# -- tars and indexes that nobody vouches for --


class Bomb:
    """An object whose unpickling runs code, which creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def forged(encoded: EncodedShard, extra: bytes, **entry: object) -> tuple[bytes, bytes]:
    """The shard with a member evil.pkl, and an index that names it as `entry` says."""
    buffer = io.BytesIO(encoded.tar)
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        member = tarfile.TarInfo("pair-000003.pkl")
        member.size = len(extra)
        archive.addfile(member, io.BytesIO(extra))
    tar = buffer.getvalue()
    index = json.loads(unsealed(encoded.index))
    place = {"offset": tar.index(extra), "size": len(extra), "sha256": hashlib.sha256(extra).hexdigest()}
    index["entries"].append({"kind": "pair", "id": "evil", "width": 0, "height": 0} | place | entry)
    return tar, sealed(json.dumps(index | {"tar_size": len(tar)}).encode())


def test_a_pickle_is_never_run(encoded: EncodedShard, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    evil = pickle.dumps(Bomb(marker))
    tar, index = forged(encoded, evil)
    (tmp_path / "shard.tar").write_bytes(tar)

    (tmp_path / "index.json").write_bytes(encoded.index)
    assert len(tar) == len(encoded.tar), "the member fits in the tar's padding"
    assert [p.pair_id for p in Shard(tmp_path / "shard.tar", tmp_path / "index.json").pairs] == ["1", "2", "6"]

    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises(InputError, match="pair 'evil': not JSON"):
        _ = Shard(tmp_path / "shard.tar", tmp_path / "index.json").pairs

    (tmp_path / "index.json").write_bytes(forged(encoded, evil, kind="pkl")[1])
    with pytest.raises(InputError, match="unknown kind of member 'pkl'"):
        Shard(tmp_path / "shard.tar", tmp_path / "index.json")

    assert not marker.exists()
    pickle.loads(evil)
    assert marker.exists(), "the bomb was a dud, this test shows nothing"


@pytest.mark.parametrize(
    "entry",
    [
        {"offset": -1},
        {"offset": 1.5},
        {"size": 10**15},
        {"size": True},
        {"id": ["a"]},
        {"sha256": None},
        {"width": "40"},
        {"command": "rm"},
    ],
)
def test_a_forged_index_is_refused(encoded: EncodedShard, tmp_path: Path, entry: dict[str, object]) -> None:
    tar, index = forged(encoded, b"{}", **entry)
    (tmp_path / "shard.tar").write_bytes(tar)
    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises(InputError, match="index.json: damaged"):
        Shard(tmp_path / "shard.tar", tmp_path / "index.json")


def test_a_pair_whose_image_is_not_there_is_refused(encoded: EncodedShard, tmp_path: Path) -> None:
    stranger = json.dumps(pair_to_json(PairRecord("evil", "", "b", "../../etc/passwd"))).encode()
    tar, index = forged(encoded, stranger)
    (tmp_path / "shard.tar").write_bytes(tar)
    (tmp_path / "index.json").write_bytes(index)
    shard = Shard(tmp_path / "shard.tar", tmp_path / "index.json")
    assert shard.pair(0).pair_id == "1"
    with pytest.raises(InputError, match="pair 'evil': image '../../etc/passwd' is not in the shard"):
        _ = shard.pairs


def test_a_damaged_index_is_named(encoded: EncodedShard, tmp_path: Path) -> None:
    opened(encoded, tmp_path)
    for junk in (b"", b"{", b"{}", b"[]", b"7", b'{"entries": [7], "tar_size": 1}', b"[" * 100_000):
        (tmp_path / "index.json").write_bytes(junk)
        with pytest.raises(InputError, match="shard index .*index.json: (damaged|not JSON)"):
            Shard(tmp_path / "shard.tar", tmp_path / "index.json")


def test_a_missing_file_is_named(encoded: EncodedShard, tmp_path: Path) -> None:
    opened(encoded, tmp_path)
    (tmp_path / "shard.tar").unlink()
    with pytest.raises(InputError, match="shard.tar: is not there"):
        Shard(tmp_path / "shard.tar", tmp_path / "index.json")
    with pytest.raises(InputError, match="nowhere.json: is not there"):
        Shard(tmp_path / "shard.tar", tmp_path / "nowhere.json")


# -- real images --


def test_a_benchmark_goes_through_whole(data_folder: Path, tmp_path: Path) -> None:
    source = open_pair_source("pf_willow", {"root": str(data_folder / "PF-WILLOW")})
    pairs = [pair for pair in source.pairs("test") if isinstance(pair, PairRecord)]
    block = next(plan_blocks(pairs, max_pairs=64, max_images=64))
    encoded = encode_shard(block, source.read)
    shard = opened(encoded, tmp_path)
    assert (len(shard), encoded.rejections) == (64, ())
    assert tuple(shard.image_ids) == block.images and len(set(block.images)) < 64
    for listed, read_back in zip(block.pairs, shard.pairs, strict=True):
        assert np.array_equal(listed.source_keypoints, read_back.source_keypoints)  # type: ignore[arg-type]
    assert shard.image_bytes(block.images[-1]) == source.read(block.images[-1])


@pytest.mark.parametrize("size", ["1e999", "1e3", "true", '"7"', "null", "-1", "[]"])
def test_an_index_whose_size_is_no_whole_number_is_damaged(encoded: EncodedShard, tmp_path: Path, size: str) -> None:
    (tmp_path / "shard.tar").write_bytes(encoded.tar)
    (tmp_path / "index.json").write_text(f'{{"entries": [], "tar_size": {size}}}')
    with pytest.raises(InputError, match="shard index .*: damaged|bytes, its index says -1 bytes"):
        Shard(tmp_path / "shard.tar", tmp_path / "index.json")
