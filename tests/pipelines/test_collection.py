import json
import os
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.model.engines.choose import choose_engine
from pipelines.collection import Collection
from pipelines.config import CollectionConfig
from pipelines.match import CorrespondenceRows
from pipelines.matcher_pool import MatchedPair, match_block, open_block
from pipelines.model_source import ModelSource
from pipelines.tables import table_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "top.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(skimage.data.chelsea()[:20, :30]).save(path)
    return tmp_path / "photos"


def test_jobs_name_every_pair_once(folder: Path) -> None:
    collection = Collection("photos", CollectionConfig(str(folder), "all", max_pairs=4), 10**6)
    jobs = list(collection.jobs(set(collection.tasks)))
    blocks = [open_block(job["job"]) for job in jobs]
    pairs = [(pair.source, pair.target) for block in blocks for pair in block.pairs]
    assert len(pairs) == len(set(pairs)) == collection.num_pairs == 15
    numbers = [block.first + n for block in blocks for n in range(len(block.pairs))]
    assert numbers == list(range(15))
    assert all(job["num_pairs"] <= 4 for job in jobs)
    assert blocks[0].read("a/1.png") == (folder / "a" / "1.png").read_bytes()
    assert len(list(collection.jobs({"block-000001"}))) == 1


def test_pairs_within_folders_are_of_their_category(folder: Path) -> None:
    collection = Collection("photos", CollectionConfig(str(folder)), 10**6)
    [job] = collection.jobs({"block-000000"})
    pairs = open_block(job["job"]).pairs
    assert [(p.category, p.source, p.target) for p in pairs] == [
        ("a", "a/1.png", "a/2.png"),
        ("a", "a/1.png", "a/3.png"),
        ("a", "a/2.png", "a/3.png"),
        ("b", "b/1.png", "b/2.png"),
    ]


def test_memory_for_features_bounds_a_block(folder: Path) -> None:
    config = CollectionConfig(str(folder), "all", feature_memory_mb=3)
    assert Collection("photos", config, 10**6).max_images == 3
    assert max(block.num_images for block in Collection("photos", config, 10**6).blocks) <= 3
    with pytest.raises(InputError, match="less than two images take"):
        Collection("photos", config, 2 * 10**6).max_images  # noqa: B018


def test_a_folder_without_pairs_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="collection x: no image in"):
        Collection("x", CollectionConfig(str(tmp_path / "none")), 1).num_pairs  # noqa: B018
    with pytest.raises(InputError, match="collection x: no folder"):
        Collection("x", CollectionConfig(str(tmp_path / "absent")), 1).num_pairs  # noqa: B018
    with pytest.raises(InputError, match="no image 'a/9.png'"):
        config = CollectionConfig(str(folder), "reference", reference="a/9.png")
        Collection("x", config, 1).num_pairs  # noqa: B018


def test_a_file_name_that_is_no_text_costs_only_its_pairs(folder: Path) -> None:
    (folder / "a" / "2.png").rename(os.fsdecode(os.fsencode(folder / "a") + b"/2\xff.png"))
    collection = Collection("photos", CollectionConfig(str(folder)), 10**6)
    [job] = collection.jobs({"block-000000"})
    block = open_block(json.loads(json.dumps(job["job"])))
    model = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
    rows = CorrespondenceRows(5, False, "m", "c")
    network = model.load(1)
    found = [
        rows(pair) if isinstance(pair, MatchedPair) else rows.failed(pair)
        for pair in match_block(network, choose_engine(), block, 4, rows)
    ]
    table = table_of(found, rows.schema).to_pylist()
    assert len(table) == 4
    failed = [row for row in table if row["status"] != "matched"]
    assert len(failed) == 2
    assert all("its name is not UTF-8 text; rename the file" in row["status"] for row in failed)
