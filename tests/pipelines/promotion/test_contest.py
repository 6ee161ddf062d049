"""Versions judged, promoted, used and rolled back, on a real store; by the command line and on a real cluster, too.

The versions are untrained models of known quality; the checks look at their predictions alone.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.matcher import Matcher
from dhpf.pipelines import cluster
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.config import EvaluateConfig
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.tables import PREDICTIONS, SCORES, table_of
from dhpf.pipelines.promotion.contest import Contest
from dhpf.pipelines.promotion.registry import Registry
from dhpf.pipelines.stages.evaluate import MethodScores
from dhpf.pipelines.tracking.model_card import ModelCard, TrainingData
from dhpf.pipelines.tracking.runs import workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.pipelines.workflow import WorkflowRun
from dhpf.pipelines.workflow_file import load_workflow
from dhpf.storage import location_of

FILE = Path(__file__).parents[3] / "workflows.yaml"
SETTINGS = [
    "shard.sources.photo-warps={kind: photo_warps, splits: [test], options: {views: 3, keypoints: 6}}",
    *("train=null", "search=null", "evaluate=null", "promotion.checked_pairs=1", "promotion.max_slowdown=50"),
    "match={on: [photo-warps/test], model: models:/dhpf@champion}",
]
GOOD = ModelConfig(selection="fixed", layers=(5, 8, 10, 11, 15), exponent=2)
AS_GOOD = ModelConfig(selection="fixed", layers=(5, 8, 10, 11, 15), exponent=3)
BAD = ModelConfig(selection="last")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with versions 1 (good), 2 (bad) and 3 (as good) of the model dhpf."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        work = tmp_path_factory.mktemp("work")
        tracker = Tracker(work)
        data = [TrainingData("none/train", "photo_warps", 2, "f1")]
        with workflow_run(tracker, "w", work) as parent, parent.stage("train") as run:
            run.log_config({})
            for number, config in enumerate((GOOD, BAD, AS_GOOD)):
                Matcher(config).save(work / "m.safetensors")
                card = ModelCard(config, {}, data, {"val_pck": number / 10})
                run.register("dhpf", location_of(work / "m.safetensors"), card)
    return work


@pytest.fixture(autouse=True)
def one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the commands use the session's cluster, and measure speed only once: any is fast enough here."""
    monkeypatch.setattr("dhpf.pipelines.promotion.checks.TIMED_ROUNDS", 1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(cluster, "ray_cluster", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "set_ray_environment", lambda address: None)


def models(work: Path, command: str, *arguments: str) -> int:
    options = ["--work", str(work)]
    if command in ("compare", "promote"):
        options += ["--file", str(FILE), *(part for s in SETTINGS for part in ("--set", s))]
    return main(["models", command, *arguments, *options])


def champion(work: Path) -> str | None:
    found = Registry(Tracker(work)).champion("dhpf")
    return found.version if found else None


@dataclass
class Answers:
    """Takes the place of the evaluate stage, which needs a cluster.

    Attributes:
        pck: of every pair, by the version that predicts.
        meanwhile: is called during the evaluation, for example to change the registry.
    """

    pck: Mapping[str, float] = field(default_factory=lambda: {"1": 0.8, "2": 0.3, "3": 0.8})
    meanwhile: Callable[[], None] = lambda: None

    def __call__(
        self, config: EvaluateConfig, shard_sets: Mapping[str, ShardSet], models: Mapping[str, ModelSource], _: Path
    ) -> list[MethodScores]:
        self.meanwhile()
        return [self._scores(on, method, models[method]) for on in shard_sets for method in models]

    def _scores(self, on: str, method: str, model: ModelSource) -> MethodScores:
        value = self.pck[model.version.rpartition("/")[2]]
        common = {"category": "", "metric": "PCK@0.1 image", "value": value}
        rows = [{"number": n, "pair_id": str(n)} | common for n in range(4)]
        return MethodScores(on, method, table_of([], PREDICTIONS), table_of(rows, SCORES), {})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()
    monkeypatch.setattr("dhpf.pipelines.promotion.judge.evaluate", answers)
    return answers


@pytest.fixture(scope="module")
def folder(work: Path, training_sets: tuple[ShardSet, ShardSet]) -> Path:
    """A workflow's folder with a sharded benchmark."""
    _, photos = training_sets
    ((_, shard),) = photos.shards
    tar, index = (Path(path).read_bytes() for path in shard.paths)
    output = StageOutput(work / "w" / "shard" / "photo-warps" / "test")
    output.plan({"tasks": ["0"]})
    output.commit("0", {"shard.tar": tar, "index.json": index}, {"num_pairs": len(shard)})
    output.finish({"thresholds": list(photos.thresholds), "num_pairs": len(shard)})
    return work / "w"


@pytest.fixture
def registry(work: Path) -> Iterator[Registry]:
    """A registry whose champion is version 1; what a test changes in it is undone afterwards."""
    tracker = Tracker(work)
    registry = Registry(tracker)
    registry.promote("dhpf", "1", None)
    yield registry
    tracker.client.delete_registered_model_alias("dhpf", "champion")
    tracker.client.delete_registered_model_tag("dhpf", "dhpf.champions")
    for version in registry.versions("dhpf"):
        for tag in version.tags:
            if tag.startswith(("dhpf.promotion.", "dhpf.rolled_back")):
                tracker.client.delete_model_version_tag("dhpf", version.version, tag)
    for artifacts in list((work / "mlartifacts").rglob("promotion")):
        shutil.rmtree(artifacts)


def contest(folder: Path, version: str) -> Contest:
    workflow = load_workflow(FILE, "quickstart", [*SETTINGS, "promotion.checked_pairs=1"], Path())
    return Contest(workflow, location_of(folder), Tracker(folder.parent), version)


def test_a_comparison_is_written_among_tags_and_artifacts(
    folder: Path, registry: Registry, answers: Answers, tmp_path: Path
) -> None:
    judged = contest(folder, "2")
    verdict = judged.compare()
    assert (verdict.word, verdict.champion) == ("refused", "models:/dhpf/1")
    assert [name for name, word, _ in verdict.rows() if word == "refused"] == ["pck photo-warps/test"]
    written = registry.find("dhpf", "2").verdict
    assert written["verdict"] == "refused" and written["champion"] == "models:/dhpf/1"
    assert float(written["pck photo-warps/test/difference"]) == pytest.approx(-0.5)
    assert json.loads(written["settings"])["checked_pairs"] == 1 and written["workflow"] == "quickstart"
    assert verdict.tags().items() <= written.items()
    run, client = judged.candidate.run_id, Tracker(folder.parent).client
    logged = client.download_artifacts(run, "promotion/version-2-against-1.json", str(tmp_path))
    assert json.loads(Path(logged).read_text()) == written
    pictures = [file.path for file in client.list_artifacts(run, "promotion") if file.path.endswith(".png")]
    assert "promotion/version-2-against-1.png" in pictures
    with pytest.raises(InputError, match="no champion before version 1"):
        registry.rollback("dhpf")


def test_only_a_version_that_passes_becomes_champion(folder: Path, registry: Registry, answers: Answers) -> None:
    assert contest(folder, "1").is_decided
    assert not contest(folder, "2").promote().passed
    assert contest(folder, "3").promote().passed
    assert contest(folder, "3").is_decided and not contest(folder, "1").is_decided
    assert registry.rollback("dhpf") == ("3", "1")


def test_a_champion_that_changed_during_the_comparison_stays(
    folder: Path, registry: Registry, answers: Answers
) -> None:
    answers.meanwhile = lambda: registry.promote("dhpf", "2", "1")
    with pytest.raises(InputError, match="changed from version 1 to 2 during the comparison"):
        contest(folder, "3").promote()
    assert champion(folder.parent) == "2"
    assert registry.find("dhpf", "3").verdict["champion"] == "models:/dhpf/1", "against whom the verdict was"


def test_a_checkpoint_that_is_not_the_registered_one_is_not_judged(
    folder: Path, registry: Registry, answers: Answers
) -> None:
    stored = sorted((folder.parent / "mlartifacts").rglob("checkpoint.safetensors"), key=lambda p: p.stat().st_mtime_ns)
    good, bad = stored[0].read_bytes(), stored[1].read_bytes()
    stored[1].write_bytes(good)
    with pytest.raises(InputError, match="checkpoint of version 2 is not the one that was registered"):
        contest(folder, "2").promote()
    stored[1].write_bytes(bad)
    assert champion(folder.parent) == "1" and registry.find("dhpf", "2").verdict == {}


@pytest.mark.slow
def test_a_champions_life(work: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    workflow = load_workflow(FILE, "quickstart", SETTINGS, Path())
    WorkflowRun(workflow, location_of(work / "quickstart"), Tracker(work)).run("shard")
    assert models(work, "compare", "quickstart", "1") == 0
    assert "no champion: absolute checks only" in capsys.readouterr().out
    assert champion(work) is None, "comparing changes nothing"

    assert models(work, "promote", "quickstart", "1") == 0
    assert "champion of dhpf: version 1, before it none" in capsys.readouterr().out
    assert models(work, "promote", "quickstart", "1") == 0
    assert "models:/dhpf/1 is the champion already" in capsys.readouterr().out

    assert models(work, "promote", "quickstart", "2") == 4
    said = capsys.readouterr()
    assert "verdict: refused" in said.out and "the champion stays 1" in said.err
    assert champion(work) == "1"
    tags = Registry(Tracker(work)).find("dhpf", "2").tags
    assert tags["dhpf.promotion.verdict"] == "refused" and tags["dhpf.promotion.champion"] == "models:/dhpf/1"
    assert float(tags["dhpf.promotion.pck photo-warps/test/high"]) < 0
    assert tags["dhpf.promotion.workflow"] == "quickstart" and tags["dhpf.promotion.when"].startswith("20")
    assert {p.suffix for p in (work / "mlartifacts").rglob("version-2-against-1.*")} == {".png", ".json"}

    assert models(work, "promote", "quickstart") == 0, "the newest one is judged if none is named"
    assert "champion of dhpf: version 3, before it 1" in capsys.readouterr().out
    assert models(work, "list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0] == "dhpf" and [line.split()[0] for line in listed[2:]] == ["3", "2", "1"]
    assert "champion, latest-trained" in listed[2] and "passed" in listed[2] and "20.0" in listed[2]
    assert "refused" in listed[3] and "photo-warps/test -" in listed[3]

    WorkflowRun(workflow, location_of(work / "quickstart"), Tracker(work)).run("match")
    parts = list((work / "quickstart" / "match").rglob("part.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert rows and {row["model"] for row in rows} == {"models:/dhpf/3"}, "the version, not the alias"

    assert models(work, "rollback") == 0
    assert "champion of dhpf: version 1, rolled back from 3" in capsys.readouterr().out
    assert champion(work) == "1"
    with pytest.raises(InputError, match='model.version: "models:/dhpf/3" -> "models:/dhpf/1"'):
        WorkflowRun(workflow, location_of(work / "quickstart"), Tracker(work)).run("match")
    assert models(work, "rollback", "dhpf") == 2
    assert "no champion before version 1" in capsys.readouterr().err
    assert models(work, "list", "dhpf") == 0
    assert "passed, rolled back" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["promote", "quickstart", "7"], "model dhpf: no version or alias '7'"),
        (["compare", "pf-willow"], "pf-willow: has no promotion settings"),
        (["list", "dphf"], "did you mean 'dhpf'"),
        (["rollback", "other"], "model 'other': not in the registry"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    if arguments[1] == "pf-willow":
        options = ["--work", str(work), "--file", str(FILE)]
        assert main(["models", *arguments, *options]) == 2
    else:
        assert models(work, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error and error.startswith("dhpf: ") and "\n" not in error


def test_an_empty_registry_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert models(tmp_path, "list") == 0
    assert "no registered models yet" in capsys.readouterr().out
