"""Searches on a real Ray cluster; the score of a set is compared with a matcher that has just its layers."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.frame import points_to_frame
from dhpf.images import decode_image
from dhpf.matcher import Matcher
from dhpf.metrics import pck
from dhpf.pipelines.config import SearchConfig, ShardConfig, SourceConfig
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.layer_search.beam import Level
from dhpf.pipelines.outputs.store import PlanConflict, StageOutput
from dhpf.pipelines.stages.search import search, searched_model
from dhpf.pipelines.stages.shard import shard

MODEL = ModelConfig(selection="all", exponent=3)
CONFIG = SearchConfig(on="photo-warps/val", beam=1, max_layers=6, max_pairs=3, num_actors=1)


@pytest.fixture(scope="module")
def shards(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    source = SourceConfig("photo_warps", ("val",), {"views": 2, "keypoints": 12})
    (made,) = shard(ShardConfig({"photo-warps": source}, max_pairs=3), tmp_path_factory.mktemp("shard"))
    return made


@pytest.fixture(scope="module")
def undisturbed(shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    search(MODEL, CONFIG, shards, folder)
    return folder


def mean_pck(shards: ShardSet, layers: tuple[int, ...]) -> float:
    matcher = Matcher(ModelConfig(selection="fixed", layers=layers, exponent=3))
    pairs = [pair for _, part in shards.shards for pair in part.pairs][:3]
    values = []
    for pair in pairs:
        source, target = (decode_image(shards.read(i), i) for i in (pair.source, pair.target))
        moved, valid, _ = matcher.transfer(source, target, pair.source_keypoints)
        true, found = (points_to_frame(p, target.shape[1::-1]) for p in (pair.target_keypoints, moved))
        values.append(pck(found, true, valid, 240.0, [0.1])[0])
    return float(np.mean(values))


def test_sets_are_worth_what_matchers_with_their_layers_reach(shards: ShardSet, undisturbed: Path) -> None:
    found = search(MODEL, CONFIG, shards, undisturbed)
    singles, couples = found.levels[:2]
    assert (found.num_pairs, len(singles), len(couples)) == (3, 17, 16)
    for scored in (singles[5], couples[0], found.best):
        assert scored.pck == pytest.approx(mean_pck(shards, scored.layers), abs=1e-9)
    assert found.best.pck == max(scored.pck for level in found.levels for scored in level)
    model = searched_model(undisturbed)
    assert (model.selection, model.layers, model.appearance_exponent) == ("fixed", found.best.layers, 3)
    assert found.metric == "PCK@0.1 image"
    header, *rows = found.csv().splitlines()
    assert header == "num_layers,layers,pck" and len(rows) == found.num_sets


def test_a_search_that_is_over_leaves_nothing_to_do(undisturbed: Path, shards: ShardSet) -> None:
    found = search(MODEL, CONFIG, shards, undisturbed, lambda level: pytest.fail("was complete"))
    assert 2 <= len(found.levels) < 6
    assert StageOutput(undisturbed).missing() == []


def test_a_killed_search_goes_on_and_finds_the_same_however_it_is_shared_out(
    shards: ShardSet, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "killed")
    (tmp_path / "killed" / "MANIFEST.json").unlink()
    for commit in (tmp_path / "killed" / "commits").glob("*.json"):
        if commit.stem != "layers-01":
            commit.unlink()
    with pytest.raises(InputError, match="no complete search in"):
        searched_model(tmp_path / "killed")
    before = search(MODEL, CONFIG, shards, undisturbed)

    told: list[Level] = []
    # Two actors, each with room for the features of two images: every pair is a block.
    other = dataclasses.replace(CONFIG, num_actors=2, feature_memory_mb=6)
    found = search(MODEL, other, shards, tmp_path / "killed", told.append)
    assert tuple(told) == before.levels[1:], "the first level is not scored again"
    assert found == before
    digests = [StageOutput(folder).manifest().digest() for folder in (tmp_path / "killed", undisturbed)]  # type: ignore[union-attr]
    assert digests[0] == digests[1]


def test_another_search_in_the_same_folder_is_refused(shards: ShardSet, undisturbed: Path) -> None:
    with pytest.raises(PlanConflict, match="config.beam: 1 -> 3"):
        search(MODEL, dataclasses.replace(CONFIG, beam=3), shards, undisturbed)


def test_pairs_without_ground_truth_cannot_be_searched_on(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pair of shard set photo-warps/val has keypoints"):
        search(MODEL, CONFIG, dataclasses.replace(shards, thresholds=()), tmp_path)
