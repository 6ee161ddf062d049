"""An image that was replaced after results were made of it is found when they are asked for again, a touched one not.

The runs are real, with actors in this process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.pipelines.config import CollectionConfig, MatchConfig
from dhpf.pipelines.inputs.collection import Collection, open_collection
from dhpf.pipelines.inputs.image_stamps import IMAGES, ReplacedImages, of_collection, require_not_replaced
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stages.match import match as match_stage
from dhpf.planning.select import All
from dhpf.storage import location_of

MODEL = ModelSource(config=ModelConfig("efficientnet_lite0", image_side=64, selection="all"))

Match = Callable[[], None]


@pytest.fixture
def match(four_photos: Path, tmp_path: Path, tasks_here: None) -> Match:
    """Matches the pairs of four photos in three blocks, or goes on with it."""
    config, folder = CollectionConfig(str(four_photos), All(), max_pairs=2), location_of(tmp_path / "out")

    def match() -> None:
        with open_collection("photos", config, 10**6) as photos:
            match_stage(MatchConfig(collections={"photos": config}), photos, MODEL, folder, print)

    return match


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def replace(path: Path) -> None:
    """Puts another picture of the same size in bytes, as near as can be, in the place of one."""
    Image.fromarray(np.flip(np.asarray(Image.open(path)), axis=1)).save(path)


def touch(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (1, path.stat().st_mtime + 1000))


def test_a_complete_output_says_when_its_images_are_others(match: Match, four_photos: Path, tmp_path: Path) -> None:
    match()
    output = tmp_path / "out" / "photos"
    before = snapshot(output)
    match()
    assert snapshot(output) == before, "the same images: nothing is written"

    touch(four_photos)
    match()
    assert {path.parts[-1] for path in set(snapshot(output)) - set(before)} == {"000002.json", "stamps.parquet"}
    assert len(list((output / IMAGES).rglob("*.*"))) == 2, "stamps of before are removed"
    noted = snapshot(output)
    match()
    assert snapshot(output) == noted, "touched images are read once, not each time"

    shutil.copy(four_photos / "2.png", tmp_path / "kept.png")
    replace(four_photos / "2.png")
    with pytest.raises(ReplacedImages, match="collection photos: 1 image .*: 2.png; put them back, .*--restart match"):
        match()
    assert snapshot(output) == noted
    shutil.copy(tmp_path / "kept.png", four_photos / "2.png")
    match()


def images_of(part: Path) -> set[str]:
    table = pq.read_table(part)
    return {*table["source"].to_pylist(), *table["target"].to_pylist()}


def test_an_output_that_was_begun_goes_on_unless_a_committed_row_holds_another_picture(
    match: Match, four_photos: Path, tmp_path: Path
) -> None:
    match()
    output = tmp_path / "out" / "photos"
    blocks = {part.parts[-3]: images_of(part) for part in output.glob("data/*/*/part.parquet")}
    kept = min(blocks, key=lambda block: len(blocks[block]))
    held, free = min(blocks[kept]), min({path.name for path in four_photos.iterdir()} - blocks[kept])
    (output / "MANIFEST.json").unlink()
    for block in set(blocks) - {kept}:
        (output / "commits" / f"{block}.json").unlink()
    replace(four_photos / free)
    match()

    (output / "MANIFEST.json").unlink()
    replace(four_photos / held)
    [stamps] = (output / IMAGES).glob("*/stamps.parquet")
    stamps.write_bytes(stamps.read_bytes()[:-9])  # not known any more: all images are compared
    with pytest.raises(ReplacedImages, match=f"1 image replaced since .*: {held}; put them back"):
        match()
    assert not (output / "MANIFEST.json").exists()


def test_what_was_complete_before_stamps_were_noted_stays_as_it_is(collection: Collection, output: StageOutput) -> None:
    for task in collection.tasks:
        output.commit(task, {}, {})
    output.finish({})
    require_not_replaced(output, of_collection(collection, output))
    assert not list((output.root / IMAGES).entries())


def test_two_drivers_note_the_same(collection: Collection, output: StageOutput) -> None:
    for _ in range(2):
        require_not_replaced(output, of_collection(collection, output))
    assert len(list((output.root / IMAGES).entries())) == 2
