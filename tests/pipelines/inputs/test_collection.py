import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.images import ImageError
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.config import CollectionConfig, Resources
from dhpf.pipelines.inputs.block_source import BlockJob
from dhpf.pipelines.inputs.collection import Collection, open_collection
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.planned_pairs import PlannedPairs
from dhpf.pipelines.matching.block_matching import match_block
from dhpf.pipelines.matching.matched_pair import table_row
from dhpf.pipelines.outputs.store import PlanConflict, StageOutput
from dhpf.pipelines.outputs.tables import table_of
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.planning.blocks import pairs_of
from dhpf.planning.select import All, Neighbours, PairList, Reference
from dhpf.storage import location_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "top.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(skimage.data.chelsea()[:20, :30]).save(path)
    return tmp_path / "photos"


def opened(config: CollectionConfig, bytes_per_image: int = 10**6) -> Collection:
    """The collection; that its context has ended does not matter, because its pairs are not listed on disk."""
    with open_collection("photos", config, bytes_per_image) as collection:
        return collection


@pytest.fixture
def listed(folder: Path, tmp_path: Path) -> Iterator[Collection]:
    (tmp_path / "list.csv").write_text(
        "target,category,source,source_points\n"
        'b/1.png,cat,a/1.png,"1,2;3,4"\n'
        "gone.png,,a/1.png,\n"
        "a/2.png,,a/1.png,\n"
        "a/1.png,,a/2.png,\n"
        'a/1.png,,b/1.png,"40,2"\n'
    )
    config = CollectionConfig(str(folder), PairList(str(tmp_path / "list.csv")), max_pairs=1)
    with open_collection("photos", config, 10**6, location_of(tmp_path / "scratch")) as collection:
        yield collection
    assert list((tmp_path / "scratch").iterdir()) == []


def test_jobs_name_every_pair_once(folder: Path) -> None:
    collection = opened(CollectionConfig(str(folder), All(), max_pairs=4))
    jobs = list(collection.jobs(set(collection.tasks)))
    blocks = [job.open() for job in jobs]
    pairs = [(pair.source, pair.target) for block in blocks for pair in block.pairs]
    assert len(pairs) == len(set(pairs)) == collection.num_pairs == 15
    assert [number for block in blocks for number in block.numbers] == list(range(15))
    assert all(job.num_pairs <= 4 for job in jobs)
    assert blocks[0].read("a/1.png") == (folder / "a" / "1.png").read_bytes()
    assert len(list(collection.jobs({"block-000001"}))) == 1


def test_jobs_are_made_one_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = opened(CollectionConfig(str(folder), All(), max_pairs=1))
    read: list[int] = []
    monkeypatch.setattr(PlannedPairs, "read", lambda plan, block: read.append(block.index) or pairs_of(block, None))
    next(collection.jobs(set(collection.tasks)))
    assert read == [0]


def test_an_image_that_changes_during_a_run_is_not_used(folder: Path) -> None:
    [job] = opened(CollectionConfig(str(folder), All(), max_pairs=100)).jobs({"block-000000"})
    block = pickle.loads(pickle.dumps(job)).open()
    before = block.read("a/1.png")
    (folder / "a" / "1.png").write_bytes(before + b"x")
    with pytest.raises(ImageError, match=r"a/1.png: changed since the run began \([0-9,]+ bytes then, [0-9,]+ now\)"):
        block.read("a/1.png")
    assert block.read("a/2.png") == before


def test_a_list_keeps_its_rows_categories_and_points(listed: Collection) -> None:
    jobs = listed.jobs(set(listed.tasks))
    blocks = [job.open() for job in jobs]
    found = {
        number: (p.pair_id, p.category, p.source, p.target, p.source_keypoints)
        for block in blocks
        for number, p in zip(block.numbers, block.pairs, strict=True)
    }
    assert sorted(found) == [0, 2, 3, 4]
    assert found[0][:4] == ("000000001", "cat", "a/1.png", "b/1.png")
    assert found[0][4].tolist() == [[1, 2], [3, 4]]  # type: ignore[union-attr]
    assert found[3] == ("000000004", "", "a/2.png", "a/1.png", None)
    assert listed.tasks == [*(f"block-{n:06d}" for n in range(4)), "rejects"]
    assert (listed.num_pairs, listed.plan.num_rejected) == (4, 1)
    assert "row 2: image 'gone.png' is not in the folder" in str(listed.plan.first_rejection)


def test_points_outside_their_image_cost_only_their_pair(listed: Collection) -> None:
    rows = [row for job in listed.jobs(set(listed.tasks)) for row in matched(job)]
    assert {row["number"]: row["status"] for row in rows if row["status"] != "matched"} == {
        4: "source_points: (40, 2) lies outside image b/1.png of 30 x 20 pixels"
    }
    [row] = [row for row in rows if row["number"] == 0]
    assert row["given_points"] == [[1, 2], [3, 4]] and len(row["transferred_points"]) == 2
    assert row["category"] == "cat"


def matched(job: BlockJob) -> list[dict[str, Any]]:
    """The rows of a block, matched in this process."""
    model = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
    rows = CorrespondenceRows(5, False, "m", "c")
    found = [table_row(rows, pair) for pair in match_block(model.load(Resources()), choose_engine(), job.open(), rows)]
    return list(table_of(found, rows.schema).to_pylist())


def test_what_decides_the_blocks_is_in_the_settings(folder: Path) -> None:
    one = CollectionConfig(str(folder), Reference("top.png"))
    for changed in (
        replace(one, select=Reference("a/1.png")),
        replace(one, feature_memory_mb=2),
        replace(one, max_pairs=2),
        CollectionConfig(str(folder), All()),
    ):
        assert opened(changed).settings != opened(one).settings
        assert opened(changed).digest == opened(one).digest


def test_settings_are_as_they_always_were_so_that_what_is_complete_stays_so(folder: Path, listed: Collection) -> None:
    of_every_plan = {"reference": None, "reach": None, "max_pairs": 24, "max_images": 1000}
    chosen = {select.name: opened(CollectionConfig(str(folder), select)).settings for select in (All(), Neighbours(2))}
    assert chosen["all"] == of_every_plan | {"select": "all"}
    assert chosen["neighbours"] == of_every_plan | {"select": "neighbours", "reach": 2}
    assert listed.settings == of_every_plan | {"select": "list", "max_pairs": 1}


def test_a_changed_list_is_another_data_set(listed: Collection) -> None:
    before = listed.digest
    assert isinstance(listed.config.select, PairList)
    with Path(listed.config.select.pair_list).open("a") as file:
        file.write("top.png,,a/1.png,\n")
    assert listed.digest != before


def test_pairs_within_folders_are_of_their_category(folder: Path) -> None:
    collection = opened(CollectionConfig(str(folder)))
    [job] = collection.jobs({"block-000000"})
    pairs = job.open().pairs
    assert [(p.category, p.source, p.target) for p in pairs] == [
        ("a", "a/1.png", "a/2.png"),
        ("a", "a/1.png", "a/3.png"),
        ("a", "a/2.png", "a/3.png"),
        ("b", "b/1.png", "b/2.png"),
    ]


def test_memory_for_features_bounds_a_block(folder: Path) -> None:
    config = CollectionConfig(str(folder), All(), feature_memory_mb=3)
    assert opened(config).plan.limits.max_images == 3
    assert max(block.num_images for block in opened(config).plan.blocks()) <= 3
    with pytest.raises(InputError, match="less than two images take"):
        opened(config, 2 * 10**6)


def test_a_folder_without_pairs_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="collection '.*none': holds no image"):
        opened(CollectionConfig(str(tmp_path / "none")))
    with pytest.raises(InputError, match="collection: no folder"):
        opened(CollectionConfig(str(tmp_path / "absent")))
    with pytest.raises(InputError, match="no image 'a/9.png'"):
        opened(CollectionConfig(str(folder), Reference("a/9.png")))


def test_a_file_name_that_is_no_text_costs_only_its_pairs(folder: Path) -> None:
    (folder / "a" / "2.png").rename(os.fsdecode(os.fsencode(folder / "a") + b"/2\xff.png"))
    collection = opened(CollectionConfig(str(folder)))
    [job] = collection.jobs({"block-000000"})
    table = matched(job)
    assert len(table) == 4
    failed = [row for row in table if row["status"] != "matched"]
    assert len(failed) == 2
    assert all("its name is not UTF-8 text; rename the file" in row["status"] for row in failed)


def many(folder: Path, number: int) -> CollectionConfig:
    """All pairs of a collection with this number of images."""
    first = (folder / "top.png").read_bytes()
    (folder / "many").mkdir()
    for index in range(number):
        (folder / "many" / f"{index:03d}.png").write_bytes(first)
    return CollectionConfig(str(folder / "many"), All())


def test_a_small_collection_has_blocks_for_several_actors(folder: Path) -> None:
    config = many(folder, 16)
    with open_collection("photos", config, 10**6) as collection:
        assert collection.num_pairs == 120 and len(collection.tasks) >= 4
        assert collection.settings["max_pairs"] == 24
    with open_collection("photos", replace(config, max_pairs=500), 10**6) as collection:
        assert len(collection.tasks) == 1


def test_images_that_help_each_other_stay_in_one_block(folder: Path) -> None:
    with open_collection("photos", many(folder, 16), 10**6, keep_together=True) as collection:
        assert len(collection.tasks) == 1 and collection.settings["max_pairs"] == 500


def test_an_output_that_was_begun_goes_on_with_its_blocks(folder: Path, tmp_path: Path) -> None:
    config = many(folder, 16)
    output = StageOutput(tmp_path / "match" / "photos")
    assert output.planned("max_pairs") is None
    with open_collection("photos", replace(config, max_pairs=500), 10**6) as begun:
        output.plan({"stage": "match", **begun.settings, "tasks": begun.tasks})
    with open_collection("photos", config, 10**6, max_pairs_before=output.planned("max_pairs")) as collection:
        output.plan({"stage": "match", **collection.settings, "tasks": collection.tasks})
    with open_collection("photos", config, 10**6) as collection, pytest.raises(PlanConflict, match="max_pairs: 500"):
        output.plan({"stage": "match", **collection.settings, "tasks": collection.tasks})


def test_a_short_list_has_blocks_for_several_actors_too(folder: Path, tmp_path: Path) -> None:
    images = [f"{n:03d}.png" for n in range(16)]
    root = many(folder, 16).root
    rows = [f"{a},{b}" for a in images for b in images if a < b]
    (tmp_path / "list.csv").write_text("source,target\n" + "\n".join([*rows, "gone.png,000.png"]) + "\n")
    config = CollectionConfig(root, PairList(str(tmp_path / "list.csv")))
    with open_collection("photos", config, 10**6, location_of(tmp_path / "scratch")) as collection:
        assert collection.num_pairs == 120 and len(collection.tasks) >= 5
        numbers = [number for job in collection.jobs(set(collection.tasks)) for number in job.open().numbers]
        assert sorted(numbers) == list(range(120))
        assert collection.rejected is not None and collection.rejected.num_rows == 1
    assert list((tmp_path / "scratch").iterdir()) == []
