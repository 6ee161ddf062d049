"""Versions judged, promoted, used and rolled back by the real command line, on a real store and a real cluster.

The versions are untrained models of known quality: what a check looks at is what they answer, not how they came to be.
"""

import contextlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.matcher import Matcher
from dhpf.pipelines import cluster
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.promotion.registry import Registry
from dhpf.pipelines.tracking.model_card import ModelCard, TrainingData
from dhpf.pipelines.tracking.registering import register_model
from dhpf.pipelines.tracking.runs import stage_run, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.pipelines.workflow import WorkflowRun
from dhpf.pipelines.workflow_file import load_workflow

pytestmark = pytest.mark.slow

FILE = Path(__file__).parents[3] / "workflows.yaml"
SETTINGS = [
    "shard.sources.photo-warps={kind: photo_warps, splits: [test], options: {views: 3, keypoints: 6}}",
    *("train=null", "search=null", "evaluate=null", "promotion.checked_pairs=2", "promotion.max_slowdown=50"),
    "match={on: [photo-warps/test], model: models:/dhpf@champion}",
]
GOOD = ModelConfig(selection="fixed", layers=(5, 8, 10, 11, 15), exponent=2)
AS_GOOD = ModelConfig(selection="fixed", layers=(5, 8, 10, 11, 15), exponent=3)
BAD = ModelConfig(selection="last")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A work folder with a sharded benchmark and versions 1 (good), 2 (bad) and 3 (as good) of the model dhpf."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        work = tmp_path_factory.mktemp("work")
        tracker = Tracker(work)
        workflow = load_workflow(FILE, "quickstart", SETTINGS, Path())
        WorkflowRun(workflow, work / "quickstart", tracker).run("shard")
        data = [TrainingData("none/train", "photo_warps", 2, "f1")]
        with workflow_run(tracker, "w", work) as parent, stage_run(tracker, "w", parent, "train") as run:
            run.log_config({})
            for number, config in enumerate((GOOD, BAD, AS_GOOD)):
                Matcher(config).save(work / "m.safetensors")
                card = ModelCard(config, {}, data, {"val_pck": number / 10})
                register_model(tracker, run, "dhpf", work / "m.safetensors", card)
    return work


@pytest.fixture(autouse=True)
def one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands use the cluster that runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(cluster, "ray_cluster", lambda address, cpus: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "set_ray_environment", lambda address, work: None)


def models(work: Path, command: str, *arguments: str) -> int:
    options = ["--work", str(work)]
    if command in ("compare", "promote"):
        options += ["--file", str(FILE), *(part for s in SETTINGS for part in ("--set", s))]
    return main(["models", command, *arguments, *options])


def champion(work: Path) -> str | None:
    found = Registry(Tracker(work)).champion("dhpf")
    return found.version if found else None


def test_a_champions_life(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
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

    workflow = load_workflow(FILE, "quickstart", SETTINGS, Path())
    WorkflowRun(workflow, work / "quickstart", Tracker(work)).run("match")
    parts = list((work / "quickstart" / "match").rglob("part.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert rows and {row["model"] for row in rows} == {"models:/dhpf/3"}, "the version, not the alias"

    assert models(work, "rollback") == 0
    assert "champion of dhpf: version 1, rolled back from 3" in capsys.readouterr().out
    assert champion(work) == "1"
    with pytest.raises(InputError, match='model.version: "models:/dhpf/3" -> "models:/dhpf/1"'):
        WorkflowRun(workflow, work / "quickstart", Tracker(work)).run("match")
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
