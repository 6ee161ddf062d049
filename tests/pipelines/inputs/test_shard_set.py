from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from dhpf.errors import InputError
from dhpf.pipelines.inputs.shard_set import ShardSet, joined, open_shard_set
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.planning.blocks import Block
from dhpf.records import PairRecord
from dhpf.shards.shards import encode_shard


def finished(folder: Path, name: str, *, complete: bool = True) -> None:
    """Writes a shard set of three blocks: with two pairs, with none because all were rejected, and with one."""
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for image in ("1.png", "2.png"):
        Image.fromarray(skimage.data.chelsea()[:20, :30]).save(photos / image)
    output = StageOutput(folder / name)
    tasks = ["block-000000", "block-000001", "block-000002", "rejects"]
    output.plan({"stage": "shard", "tasks": tasks})
    for task, ids in zip(tasks[:3], (("a", "b"), (), ("c",)), strict=True):
        pairs = tuple(PairRecord(pair, "", "1.png", "2.png") for pair in ids)
        encoded = encode_shard(Block(task, ("1.png", "2.png"), pairs), lambda image: (photos / image).read_bytes())
        output.commit(task, {"shard.tar": encoded.tar, "index.json": encoded.index}, {"num_pairs": len(ids)})
    output.commit("rejects", {}, {"num_rejected": 1})
    if complete:
        output.finish({"num_pairs": 3, "thresholds": ["image"]})


def test_blocks_without_pairs_are_left_out_and_jobs_count_on(tmp_path: Path) -> None:
    finished(tmp_path, "photos/all")
    shards = open_shard_set(tmp_path, "photos/all")
    assert (shards.name, shards.num_pairs, shards.thresholds, shards.rejected) == ("photos/all", 3, ("image",), None)
    assert shards.tasks == ["block-000000", "block-000002"]
    jobs = list(shards.jobs(set(shards.tasks)))
    assert [(job.task, job.num_pairs, job.first) for job in jobs] == [("block-000000", 2, 0), ("block-000002", 1, 2)]
    assert [number for job in jobs for number in job.open().numbers] == [0, 1, 2]
    assert [job.first for job in shards.jobs({"block-000002"})] == [2], "what is done before counts all the same"
    assert shards.read("2.png") == (tmp_path / "photos" / "2.png").read_bytes()


def test_what_is_not_complete_is_refused(tmp_path: Path) -> None:
    finished(tmp_path, "photos/all", complete=False)
    with pytest.raises(InputError, match="shard set photos/all: not complete .*; run the shard stage first"):
        open_shard_set(tmp_path, "photos/all")


def test_several_sets_are_joined_to_one(tmp_path: Path) -> None:
    finished(tmp_path, "photos/all")
    one = open_shard_set(tmp_path, "photos/all")
    other = ShardSet("others/all", one.shards, (), "another digest", {"num_pairs": 3})
    assert joined([one]) is one
    both = joined([other, one])
    assert (both.name, both.num_pairs, both.thresholds) == ("others/all + photos/all", 6, ("image",))
    assert len(set(both.tasks)) == 4 and both.digest not in (one.digest, other.digest)
    assert joined([one, other]).digest != both.digest
