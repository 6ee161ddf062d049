from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from dhpf.config import BordersName, ModelConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.model.joint import JointMatching
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.blocks.caution import Caution, Step
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.block_source import OpenBlock
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import MatchOptions, match_block
from dhpf.pipelines.matching.describing import describe_block
from dhpf.pipelines.matching.matched_pair import MatchedPair, table_row
from dhpf.pipelines.outputs.tables import table_of
from dhpf.pipelines.stages.match import CorrespondenceRows
from dhpf.records import PairRecord

PHOTO = skimage.data.coffee()


@pytest.fixture(scope="module")
def network() -> HyperpixelNetwork:
    return ModelSource(ModelConfig(selection="fixed", layers=(11,))).load(Resources())


def crops(folder: Path, names: dict[str, int], width: int) -> OpenBlock:
    """A block of all pairs within folders; its images are crops of one photo, at these distances from its left edge."""
    for name, x in names.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(PHOTO[40:240, x : x + width]).save(path)
    pairs = [(s, t) for s in names for t in names if s < t and s[0] == t[0]]
    records = [PairRecord(str(n), s[0], s, t) for n, (s, t) in enumerate(pairs, start=1)]
    return OpenBlock(range(len(records)), records, lambda image: (folder / image).read_bytes())


def matched(network: HyperpixelNetwork, block: OpenBlock, intermediates: int) -> list[dict[str, Any]]:
    """The rows of a block, matched in this process."""
    rows = CorrespondenceRows(5, False, "m", "c")
    found = [
        table_row(rows, pair)
        for pair in match_block(network, choose_engine(), block, rows, MatchOptions(intermediates=intermediates))
    ]
    return list(table_of(found, rows.schema).to_pylist())


@pytest.mark.parametrize("intermediates", [0, 1])
def test_borders_are_left_out_and_images_without_one_stay_as_they_are(
    network: HyperpixelNetwork, tmp_path: Path, intermediates: int
) -> None:
    block = crops(tmp_path, {"a/1.png": 0, "a/2.png": 9, "b/1.png": 5, "b/2.png": 14, "c/1.png": 3, "c/2.png": 7}, 200)
    for name in ("b/1.png", "b/2.png"):  # 200 x 200 pixels, framed by 50 more
        Image.fromarray(np.pad(np.asarray(Image.open(tmp_path / name)), ((50, 50), (50, 50), (0, 0)))).save(
            tmp_path / name
        )
    Image.new("RGB", (90, 60), (9, 90, 200)).save(tmp_path / "c/2.png")
    rows = CorrespondenceRows(50, True, "m", "c")

    def found(borders: BordersName) -> list[dict[str, Any]]:
        options = MatchOptions(intermediates=intermediates, borders=borders)
        return [dict(table_row(rows, pair)) for pair in match_block(network, choose_engine(), block, rows, options)]

    kept, left_out = ({row["number"]: row for row in found(name)} for name in ("kept", "left-out"))
    assert left_out[0] == kept[0] and kept[2]["status"] == "matched"
    assert left_out[2]["status"] == "image c/2.png: all of one colour, with nothing to match"
    on_frame = [
        np.mean([not 50 <= x < 250 or not 50 <= y < 250 for x, y in r[1]["source_points"]]) for r in (kept, left_out)
    ]
    assert on_frame[0] > 0.3 and on_frame[1] == 0 and left_out[1]["score"] > 0
    flow = np.array(left_out[1]["flow"]).reshape(60, 60, 2)
    assert np.isnan(flow[:10]).all() and np.isnan(flow[:, 51:]).all() and np.isfinite(flow[15:45, 15:45]).all()
    assert flow[15:45, 15:45].min() >= 50 and flow[15:45, 15:45].max() < 250


def test_a_pair_of_a_list_is_matched_within_its_boxes(network: HyperpixelNetwork, tmp_path: Path) -> None:
    block = crops(tmp_path, {"a/1.png": 0, "a/2.png": 9}, 200)  # 200 x 200 pixels
    boxes = [(20.0, 30.0, 120.0, 160.0), None, (150.0, 30.0, 260.0, 160.0), (30.5, 30.5, 31.0, 31.0)]
    records = [replace(block.pairs[0], source_box=box, target_box=(60.0, 0.0, 200.0, 100.0)) for box in boxes]
    rows = CorrespondenceRows(50, False, "m", "c")

    def found(within_boxes: bool) -> list[dict[str, Any]]:
        opened = OpenBlock(range(4), records, block.read, within_boxes)
        found = [dict(table_row(rows, pair)) for pair in match_block(network, choose_engine(), opened, rows)]
        return sorted(found, key=lambda row: int(row["number"]))

    bounded, whole = found(True), found(False)
    assert whole[0]["source_points"] == whole[1]["source_points"] == whole[3]["source_points"]
    source, target = (np.array(bounded[0][name]) for name in ("source_points", "target_points"))
    assert len(source) > 3 and (source >= (19.9, 29.9)).all() and (source <= (120.1, 160.1)).all()
    assert (target >= (59.9, 0)).all() and (target[:, 1] <= 100.1).all()
    assert len(bounded[1]["source_points"]) > len(source)
    assert bounded[2]["status"] == "source_box of a/1.png: 150,30,260,160 lies outside the image of 200 x 200 pixels"
    assert bounded[3]["status"].startswith("source_box of a/1.png: holds no point of the grid that is matched")


def test_a_pair_is_matched_through_the_blocks_other_images_of_its_folder(
    network: HyperpixelNetwork, tmp_path: Path
) -> None:
    names = {name: 8 * int(name[2]) for name in ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png")}
    block = crops(tmp_path, names, 300)
    alone, jointly = ({(r["source"], r["target"]): r for r in matched(network, block, limit)} for limit in (0, 4))
    assert alone.keys() == jointly.keys() and all(r["status"] == "matched" for r in jointly.values())
    for pair, row in jointly.items():
        assert row["source_points"] and row["layers"] == alone[pair]["layers"]
        moved = np.array(row["target_points"]) - np.array(row["source_points"])
        assert np.abs(np.median(moved, axis=0) - [8 * (int(pair[0][2]) - int(pair[1][2])), 0]).max() < 4
        assert 0 < row["score"] <= 1
    # The two images of folder b have no other of their kind: the direct path alone.
    first, only = jointly["a/1.png", "a/2.png"], jointly["b/1.png", "b/2.png"]
    assert first["target_points"] != alone["a/1.png", "a/2.png"]["target_points"]
    assert only == next(row for row in matched(network, block, 1) if row["source"] == "b/1.png")


def test_points_and_flow_of_a_pair_matched_jointly_are_where_all_paths_say(
    network: HyperpixelNetwork, tmp_path: Path
) -> None:
    block = crops(tmp_path, {"a/1.png": 8, "a/2.png": 16, "a/3.png": 24}, 240)
    rows = CorrespondenceRows(5, True, "", "")
    alone = list(match_block(network, choose_engine(), block, rows))
    jointly = list(match_block(network, choose_engine(), block, rows, MatchOptions(intermediates=1)))
    features = describe_block(network, block).features
    paths = JointMatching(network, features, ["a"] * 3, limit=1)
    for pair, single, (source, target) in zip(jointly, alone, [(0, 1), (0, 2), (1, 2)], strict=True):
        assert isinstance(pair, MatchedPair) and isinstance(single, MatchedPair)
        scale = np.array(pair.target.size) / 240
        assert np.allclose(pair.flow(), paths.match(source, target).points.numpy() * scale, atol=1e-3)
        middle = np.array([[pair.source.size[0] / 2, pair.source.size[1] / 2]], dtype=np.float32)
        moved, valid, confidence = pair.transfer(middle)
        assert valid.all() and 0 < confidence[0] <= 1
        assert not np.allclose(moved, single.transfer(middle)[0], atol=1e-4)


def test_a_pair_that_cannot_be_matched_is_a_row_with_its_reason(network: HyperpixelNetwork, tmp_path: Path) -> None:
    block = crops(tmp_path, {"a/1.png": 0, "a/2.png": 9}, 240)
    (tmp_path / "broken.png").write_bytes(b"no image")
    points = np.array([[300, 5]], dtype=np.float32)
    records = [
        *block.pairs,
        PairRecord("2", "", "a/1.png", "broken.png"),
        PairRecord("3", "", "a/2.png", "a/1.png", source_keypoints=points),
        PairRecord("4", "", "a/2.png", "a/1.png"),
    ]
    rows = CorrespondenceRows(5, False, "m", "c")
    caution = Caution(pairs={3: "ended its worker"})
    block = OpenBlock(range(10, 14), records, block.read)
    found = list(match_block(network, choose_engine(), block, rows, caution=caution))
    reasons = {row["number"]: row["status"] for row in found if not isinstance(row, MatchedPair)}
    assert [pair.number for pair in found if isinstance(pair, MatchedPair)] == [10]
    assert reasons.keys() == {11, 12, 13} and "broken.png" in reasons[11]
    assert reasons[12] == "source_points: (300, 5) lies outside image a/2.png of 240 x 200 pixels"
    assert reasons[13] == "pair 4: ended its worker"


def test_one_thing_at_a_time_gives_the_same_and_says_each_step(network: HyperpixelNetwork, tmp_path: Path) -> None:
    block = crops(tmp_path, {"a/1.png": 0, "a/2.png": 9, "a/3.png": 20}, 200)
    rows = CorrespondenceRows(5, False, "m", "c")
    steps: list[Step] = []
    tables = [
        [rows(pair) for pair in match_block(network, choose_engine(), block, rows, caution=caution)]
        for caution in (Caution(), Caution(on_step=steps.append))
    ]
    assert tables[0] == tables[1]
    images = [Step.of_image(f"a/{number}.png") for number in (1, 2, 3)]
    assert steps == [*images, *map(Step.of_pair, range(3))]
