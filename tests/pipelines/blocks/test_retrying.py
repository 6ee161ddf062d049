"""Failed pairs are tried again: what was good stays, and the result is that of a run without the fault."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.blocks.quarantine import Quarantine
from dhpf.pipelines.blocks.retrying import Retried, Retry, num_failed
from dhpf.pipelines.blocks.trials import Trials
from dhpf.pipelines.config import CollectionConfig, EvaluateConfig, MatchConfig, ShardConfig, SourceConfig
from dhpf.pipelines.inputs.collection import open_collection
from dhpf.pipelines.inputs.image_stamps import ReplacedImages
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stages.evaluate import evaluate
from dhpf.pipelines.stages.match import match
from dhpf.pipelines.stages.shard import shard
from dhpf.pipelines.verification import Damage, Part, parts_of
from dhpf.planning.select import All
from dhpf.storage import location_of
from tests.pipelines.stage_outputs import manifest, parts

WORKFLOWS = Path(__file__).parents[3] / "workflows.yaml"
MODEL = ModelSource(ModelConfig(selection="fixed", layers=(11,)))
BLOCKS = ["block-000000", "block-000001", "block-000002"]


@pytest.fixture
def data(four_photos: Path, tmp_path: Path, tasks_here: None) -> Path:
    """A data folder whose `photos` holds four photos, the last of which is damaged."""
    (four_photos / "3.png").write_bytes((four_photos / "3.png").read_bytes()[:2000])
    return tmp_path


def repair(data: Path) -> None:
    Image.open(data / "photos" / "2.png").rotate(5).save(data / "photos" / "3.png")


def spoil(data: Path, name: str) -> None:
    """Makes an image one that is not read any more, because it is too large; it takes no room."""
    os.truncate(data / "photos" / name, 10**10)


def matched(data: Path, retry: Retry | None = None, *, work: str = "w", intermediates: int = 0) -> Path:
    """Matches all pairs of the photos, in blocks of two pairs; gives the output's folder."""
    config = CollectionConfig(str(data / "photos"), All(), max_pairs=2)
    settings = MatchConfig(collections={"photos": config}, intermediates=intermediates)
    with open_collection("photos", config, 10**6) as opened:
        match(settings, opened, MODEL, location_of(data / work), lambda metrics: None, retry)
    return data / work / "photos"


def tried_again(data: Path, **options: Any) -> Retried:
    retry = Retry()
    matched(data, retry, **options)
    return retry.results["match photos"]


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def digests(folder: Path) -> list[dict[str, Any]]:
    return [{name: file["sha256"] for name, file in c["files"].items()} for c in manifest(folder)["commits"]]


def good_rows(output: Path) -> dict[int, Any]:
    return {row["number"]: row for row in parts(output) if row["status"] == "matched"}


def test_the_result_is_that_of_a_run_without_the_fault(data: Path) -> None:
    output = matched(data)
    before, first = written(output), parts(output)
    assert len(good_rows(output)) == 3 and len(first) == 6
    assert tried_again(data) == Retried(3, 3) and parts(output) == first
    repair(data)
    assert tried_again(data) == Retried(3, 0)
    kept = {path.name for path, when in written(output).items() if before.get(path) == when}
    assert kept >= {"PLAN.json", *(f"{block}.json" for block in BLOCKS)}, "what was written once has changed"
    assert not [damage for part in parts_of(location_of(output)) for damage in verified(part)]
    assert digests(output) == digests(matched(data, work="fresh"))
    now, retry = written(output), Retry()
    matched(data, retry)
    assert retry.results == {} and written(output) == now


@pytest.mark.slow
def test_jointly_the_images_of_good_pairs_help_those_that_are_tried_again(data: Path) -> None:
    output = matched(data, intermediates=2)
    good = good_rows(output)
    repair(data)
    assert tried_again(data, intermediates=2) == Retried(3, 0) and good.items() <= good_rows(output).items()


def parts_by_block(output: Path) -> dict[str, str]:
    return {commit["task"]: commit["files"]["part.parquet"]["key"] for commit in manifest(output)["commits"]}


def verified(part: Part) -> list[Damage]:
    part.verify(lambda size: None)
    return part.damage


def test_good_rows_stay_whatever_becomes_of_their_images(data: Path) -> None:
    output = matched(data)
    good, keys = good_rows(output), parts_by_block(output)
    failed = {c["task"] for c in manifest(output)["commits"] if c["info"]["num_failed"]}
    assert 0 < len(failed) < len(BLOCKS)
    repair(data)
    spoil(data, "1.png")
    assert tried_again(data) == Retried(3, 1)
    rows = {row["number"]: row for row in parts(output)}
    assert {number: rows[number] for number in good} == good
    assert {task for task, key in parts_by_block(output).items() if key != keys[task]} == failed
    assert manifest(output)["record"]["num_failed"] == 1
    now = written(output)
    Image.open(data / "photos" / "0.png").rotate(90).save(data / "photos" / "0.png")
    with pytest.raises(ReplacedImages, match="1 image replaced since .*: 0.png"):
        tried_again(data)
    assert written(output) == now, "what is complete stays so"


def test_a_driver_that_is_killed_meanwhile_leaves_a_run_that_goes_on(data: Path) -> None:
    output = matched(data)
    good = good_rows(output)
    quarantine = Quarantine(location_of(output))
    quarantine.add("0.png", "ended a worker")
    for block in BLOCKS:
        Trials(location_of(output) / "scratch" / "trials" / block).new()
    Retry().begin("match photos", StageOutput(output), num_failed)  # and then the driver is killed
    assert not (output / "MANIFEST.json").exists() and quarantine.images() == {}
    assert any(not Trials(location_of(output) / "scratch" / "trials" / block).ends() for block in BLOCKS)
    repair(data)
    spoil(data, "1.png")
    matched(data)
    assert good.items() <= good_rows(output).items() and len(good_rows(output)) == 5


def test_a_damaged_earlier_table_costs_a_block_that_is_matched_whole(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = matched(data)
    Retry().begin("match photos", StageOutput(output), num_failed)
    for task in StageOutput(output).missing():
        [part] = (output / "data" / task).rglob("part.parquet")
        part.write_bytes(b"cut")
    repair(data)
    matched(data)
    assert len(good_rows(output)) == 6 and "the whole block is matched again" in caplog.text


def test_the_summary_and_the_exit_status_say_what_came_of_it(
    data: Path, no_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        places = ["--file", str(WORKFLOWS), "--data", str(data), "--work", str(data / "w")]
        model = ["--set", "model={selection: fixed, layers: [11]}"]
        return main(["run", "match-collection", *places, *model, "--set", "shard.max_pairs=2", *arguments])

    for name in ("1.png", "2.png"):
        (data / "photos" / name).unlink()
    bad = "image 0.png: ended its worker's process 3 times (SIGKILL)"
    output = data / "w" / "match-collection" / "match" / "photos" / "all"
    Image.open(data / "photos" / "0.png").save(data / "photos" / "1.png")
    Quarantine(location_of(output)).add("0.png", bad)
    assert run() == 3
    shards = written(data / "w" / "match-collection" / "shard" / "photos" / "all" / "data")
    repair_with_first(data)
    capsys.readouterr()
    assert run("--retry-errors") == 3, "the rejected pairs stay"
    said = capsys.readouterr()
    assert "  retried   match photos/all: 1 of 1 failed pair is matched now" in said.out
    assert "failed to match" not in said.err and "2 pairs rejected as input" in said.err
    assert "photos/all: its rejected pairs are not tried again, because match photos/all was made of it" in said.out
    assert written(data / "w" / "match-collection" / "shard" / "photos" / "all" / "data") == shards
    assert run("--retry-errors") == 3 and "  retried   no pair had failed" in capsys.readouterr().out


def repair_with_first(data: Path) -> None:
    Image.open(data / "photos" / "0.png").rotate(5).save(data / "photos" / "3.png")


def test_rejected_pairs_are_sharded_from_the_images_that_were_good(data: Path) -> None:
    photos = data / "photos"
    source = SourceConfig("image_folder", ("all",), {"root": str(photos), "select": "all"})
    config = ShardConfig(sources={"photos": source}, max_pairs=4)
    [first] = shard(config, location_of(data / "shards"))
    assert first.record["num_rejected"] == 3
    repair(data)
    [fresh] = shard(config, location_of(data / "fresh"))
    spoil(data, "0.png")
    retry = Retry()
    [again] = shard(config, location_of(data / "shards"), {"photos/all": retry})
    assert retry.results == {"shard photos/all": Retried(3, 0)}
    assert again.num_pairs == fresh.num_pairs == 6 and again.record["num_rejected"] == 0
    assert digests(data / "shards" / "photos" / "all") == digests(data / "fresh" / "photos" / "all")


def test_predictions_are_made_again_and_scored_again(
    training_sets: tuple[ShardSet, ShardSet], tmp_path: Path, tasks_here: None
) -> None:
    shards = training_sets[1]
    config = EvaluateConfig(on=(shards.name,), methods={"fixed": {}}, alphas=(0.1,))
    root = tmp_path / shards.name / "fixed" / "predictions"
    bad = shards.shards[0][1].image_ids[0]
    Quarantine(location_of(root)).add(bad, f"image {bad}: ended its worker's process 2 times (SIGSEGV)")
    arguments = config, {shards.name: shards}, {"fixed": MODEL}, location_of(tmp_path)
    [before] = evaluate(*arguments)
    assert before.left_out()
    retry = Retry()
    [after] = evaluate(*arguments, retry)
    assert list(retry.results) == [f"evaluate {shards.name} fixed"] and after.left_out() is None
    assert retry.results[f"evaluate {shards.name} fixed"].num_left == 0
    assert (
        len(set(after.scores["number"].to_pylist())) == shards.num_pairs > len(set(before.scores["number"].to_pylist()))
    )
