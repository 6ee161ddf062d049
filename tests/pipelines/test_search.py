"""Searches on a real Ray cluster; what a set is worth is checked against matchers that have just its layers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dhpf.config import ModelConfig
from dhpf.data.preprocessing import points_to_frame
from dhpf.errors import InputError
from dhpf.images import decode_image
from dhpf.matcher import Matcher
from dhpf.metrics import pck
from pipelines.beam import Level
from pipelines.config import SearchConfig, ShardConfig, SourceConfig
from pipelines.search import search, searched_model
from pipelines.shard import shard
from pipelines.shard_set import ShardSet
from pipelines.store import PlanConflict, StageOutput

pytestmark = pytest.mark.slow

MODEL = ModelConfig(selection="all", exponent=3)
CONFIG = SearchConfig(on="photo-warps/val", beam=2, max_layers=2)


@pytest.fixture(scope="module")
def shards(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    source = SourceConfig("photo_warps", ("val",), {"views": 2, "keypoints": 6})
    (made,) = shard(ShardConfig({"photo-warps": source}, max_pairs=3), tmp_path_factory.mktemp("shard"))
    return made


@pytest.fixture(scope="module")
def undisturbed(shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    search(MODEL, CONFIG, shards, folder)
    return folder


def mean_pck(shards: ShardSet, layers: tuple[int, ...]) -> float:
    matcher = Matcher(ModelConfig(selection="fixed", layers=layers, exponent=3))
    values = []
    for _, part in shards.shards:
        for pair in part.pairs:
            source, target = (decode_image(part.image_bytes(i), i) for i in (pair.source, pair.target))
            moved, valid, _ = matcher.transfer(source, target, pair.source_keypoints)
            true, found = (points_to_frame(p, target.shape[1::-1]) for p in (pair.target_keypoints, moved))
            values.append(pck(found, true, valid, 240.0, [0.1])[0])
    return float(np.mean(values))


def test_sets_are_worth_what_matchers_with_their_layers_reach(shards: ShardSet, undisturbed: Path) -> None:
    found = search(MODEL, CONFIG, shards, undisturbed)
    singles, couples = found.levels
    assert (found.num_pairs, len(singles), len(couples)) == (4, 17, 16 + 15)
    for scored in (singles[16], singles[5], couples[0], found.best):
        assert scored.pck == pytest.approx(mean_pck(shards, scored.layers), abs=1e-9)
    assert found.best.pck == max(scored.pck for level in found.levels for scored in level)
    model = searched_model(undisturbed)
    assert (model.selection, model.layers, model.appearance_exponent) == ("fixed", found.best.layers, 3)
    assert found.metric == "PCK@0.1 image"
    header, *rows = found.csv().splitlines()
    assert header == "num_layers,layers,pck" and len(rows) == found.num_sets


class Stopped(Exception):
    pass


def test_a_stopped_search_goes_on_and_finds_the_same_however_it_is_shared_out(
    shards: ShardSet, undisturbed: Path, tmp_path: Path
) -> None:
    # One actor, and room for the features of three images: the pairs come in several blocks.
    other = dataclasses.replace(CONFIG, num_actors=1, feature_memory_mb=9)
    told: list[int] = []

    def stop(level: Level) -> None:
        told.append(len(level))
        raise Stopped

    with pytest.raises(Stopped):
        search(MODEL, other, shards, tmp_path, stop)
    assert told == [17]
    with pytest.raises(InputError, match="no complete search in"):
        searched_model(tmp_path)
    first = (tmp_path / "commits" / "layers-01.json").stat().st_mtime_ns

    found = search(MODEL, other, shards, tmp_path, lambda level: told.append(len(level)))
    assert told == [17, 31], "the first level is not scored again"
    assert (tmp_path / "commits" / "layers-01.json").stat().st_mtime_ns == first
    assert found == search(MODEL, CONFIG, shards, undisturbed)
    digests = [StageOutput(folder).manifest().digest() for folder in (tmp_path, undisturbed)]  # type: ignore[union-attr]
    assert digests[0] == digests[1]


def test_another_search_in_the_same_folder_is_refused(shards: ShardSet, undisturbed: Path) -> None:
    with pytest.raises(PlanConflict, match="config.beam: 2 -> 3"):
        search(MODEL, dataclasses.replace(CONFIG, beam=3), shards, undisturbed)


def test_a_search_ends_early_and_takes_as_many_pairs_as_it_may(shards: ShardSet, tmp_path: Path) -> None:
    # Within half of the image every set is right, so that no second layer can help.
    config = dataclasses.replace(CONFIG, max_pairs=1, alpha=1.0, beam=1, max_layers=4)
    found = search(MODEL, config, shards, tmp_path)
    assert (found.num_pairs, [len(level) for level in found.levels]) == (1, [17, 16])
    assert (found.best.layers, found.best.pck) == ((0,), 1.0)


def test_pairs_without_ground_truth_cannot_be_searched_on(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pair of shard set photo-warps/val has keypoints"):
        search(MODEL, CONFIG, dataclasses.replace(shards, thresholds=()), tmp_path)
