"""The command line in an empty folder: run in this process, or in its own where the test is about the process."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
import safetensors.torch
import torch
from PIL import Image
from ray.exceptions import RayTaskError

from dhpf.pipelines.__main__ import main
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.stages.match import planned_settings
from dhpf.pipelines.workflow import WorkflowRun
from dhpf.pipelines.workflow_file import load_workflow
from dhpf.records import Points

FILE = Path(__file__).parents[2] / "workflows.yaml"
NO_SUCH_LAYER = "evaluate.methods={one: {selection: fixed, layers: [99]}}"
HEAVY = ("torch", "ray", "mlflow", "numpy", "pyarrow", "yaml", "matplotlib", "skimage", "sklearn")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty; what a command sets in the environment is undone."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def photo(path: Path, shift: int = 0) -> Path:
    import skimage.data

    Image.fromarray(skimage.data.chelsea()[:, shift : shift + 350]).save(path)
    return path


def test_two_images_are_matched_and_drawn_by_a_process_of_its_own(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.png", shift=40)
    command = [sys.executable, "-m", "dhpf.pipelines", "match", "a.jpg", "b.png", "--output", "new/folder/m.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert " mutual matches; layers used: 5, 8, 10, 11, 15" in done.stdout
    assert np.asarray(Image.open(tmp_path / "new" / "folder" / "m.png")).std() > 20


def test_points_are_found_in_the_other_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(folder / "a.jpg")
    photo(folder / "b.png", shift=40)
    assert main(["match", "a.jpg", "b.png", "--points", "150,100;200,200"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("1: 150,100 -> "), "numbered as in the picture"
    x, y = (float(number) for number in first.split("-> ")[1].split("  ")[0].split(","))
    assert abs(x - 110) < 8 and abs(y - 100) < 8
    assert main(["match", "a.jpg", "b.png", "--points", "150,100;200,200", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["picture"] == "match.png" and [point["source"] for point in facts["points"]] == [
        [150, 100],
        [200, 200],
    ]
    assert facts["points"][0]["target"] == pytest.approx([x, y], abs=0.06)


def test_matches_as_facts_and_in_silence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(folder / "a.jpg")
    photo(folder / "b.png", shift=40)
    assert main(["match", "a.jpg", "b.png", "--limit", "5", "--json", "--quiet"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["layers"] == [5, 8, 10, 11, 15] and len(facts["matches"]) == 5
    assert all(set(match) == {"source", "target", "confidence"} for match in facts["matches"])
    assert main(["match", "a.jpg", "b.png", "--quiet"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "") and (folder / "match.png").exists()


def test_matches_lie_where_the_object_is_and_not_on_a_frame(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shift in (("a.png", 0), ("b.png", 40)):
        pixels = np.asarray(Image.open(photo(folder / name, shift=shift)))  # 350 x 300 pixels
        Image.fromarray(np.pad(pixels, ((50, 50), (50, 50), (0, 0)))).save(folder / name)
    mask = np.zeros((400, 450), np.uint8)
    mask[150:320, 180:340] = 255
    Image.fromarray(mask).save(folder / "mask.png")

    def found(*options: str) -> tuple[Points, Points]:
        assert main(["match", "a.png", "b.png", "--limit", "200", "--json", "--quiet", *options]) == 0
        matches = json.loads(capsys.readouterr().out)["matches"]
        return np.array([m["source"] for m in matches]), np.array([m["target"] for m in matches])

    def within(points: Points, x0: float, y0: float, x1: float, y1: float) -> float:
        return float(((points >= (x0, y0)) & (points <= (x1, y1))).all(axis=1).mean())

    assert all(within(points, 50, 50, 400, 350) < 0.9 for points in found("--keep-borders"))
    assert all(within(points, 50, 50, 400, 350) == 1 for points in found())
    of_source, of_target = found("--source-box", "80,80,240,260", "--target-mask", "mask.png")
    assert within(of_source, 79, 79, 241, 261) == 1 and within(of_target, 179, 149, 341, 321) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["match", "plain.png", "a.jpg"], "image given as source: all of one colour, with nothing to match"),
        (
            ["match", "a.jpg", "a.jpg", "--source-box", "9,9,2,20"],
            "--source-box '9,9,2,20': a box is written x0,y0,x1,y1",
        ),
        (["match", "a.jpg", "a.jpg", "--target-box", "9,9,x,20"], "--target-box '9,9,x,20': a box is written"),
        (["match", "a.jpg", "a.jpg", "--source-box", "9,9,999,20"], "9,9,999,20 lies outside the image of 350 x 300"),
        (["match", "a.jpg", "a.jpg", "--source-mask", "plain.png"], "a mask of 20 x 10 pixels, but the image has 350"),
        (["match", "none.jpg", "a.jpg"], "image none.jpg: no such file"),
        (["match", "cut.jpg", "a.jpg"], "image cut.jpg: damaged or truncated"),
        (["match", "a.jpg", "notes.txt"], "image notes.txt: not a JPEG"),
        (["match", "a.jpg", "a.jpg", "--model", "evil.pth"], "a pickle of anything else is never loaded"),
        (["match", "a.jpg", "a.jpg", "--model", "r.safetensors"], "4 layers; published ones have 17"),
        (["match", "a.jpg", "a.jpg", "--model", "none.safetensors"], "none.safetensors: no such file"),
        (["match", "a.jpg", "a.jpg", "--points", "1,2;x"], "write x,y;x,y"),
        (["match", "a.jpg", "a.jpg", "--points", "999,2"], "(999, 2) lies outside the source image of 350 x 300"),
        (["run", "quikstart", "--file", str(FILE)], "did you mean 'quickstart'"),
        (["run", "quickstart", "--file", str(FILE), "--set", "train.epoch=1"], "did you mean 'epochs'"),
        (["run", "quickstart", "--file", str(FILE), "--set", "model.weights=r.safetensors"], "not those of backbone"),
        (["run", "quickstart", "--file", str(FILE), "--set", NO_SUCH_LAYER], "has layers 0 to 16, not 99"),
        (["models", "promote", "quickstart", "--file", str(FILE)], "there is none yet; run a workflow that trains"),
        (["describe", "quickstart", "--file", "own.yaml"], "workflow file own.yaml: no such file"),
        (["match", "a.jpg", "a.jpg", "--output", "z.txt"], "pictures are PNG files; name it z.png"),
        (["match", "a.jpg", "a.jpg", "--limit", "-3"], "--limit -3: must be at least 1"),
        (["run", "quickstart", "--file", str(FILE), "--only", "tran"], "no such stage; did you mean 'train'"),
        (["run", "quickstart", "--epochs", "3"], "No such option: --epochs"),
        (["rnu", "quickstart"], "No such command 'rnu'"),
        (["models"], "Missing command"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    whole = photo(folder / "a.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no image")
    Image.new("RGB", (20, 10), (200, 200, 200)).save(folder / "plain.png")
    (folder / "evil.pth").write_bytes(pickle.dumps({"run": print}))
    published = {f"reduction_ffns.{n}.0.weight": torch.zeros(8, 64, 1, 1) for n in range(4)}
    safetensors.torch.save_file(published, folder / "r.safetensors")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert sentence in said
    lines = [line for line in said.splitlines() if line.startswith("dhpf: ")]
    assert len(lines) == 1 and "Traceback" not in said


def test_a_stage_that_cannot_be_removed_is_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "w" / "quickstart").mkdir(parents=True)
    (folder / "w" / "quickstart" / "train").write_text("in the way")
    assert main(["run", "quickstart", "--file", str(FILE), "--work", "w", "--restart", "train"]) == 2
    said = capsys.readouterr().err
    assert "--restart: " in said and "train cannot be removed (Not a directory)" in said


def test_describe_needs_no_cluster(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "quickstart", "--file", str(FILE)]) == 0
    said = capsys.readouterr().out
    assert "train on photo-warps" in said and "to do" in said
    assert "promotion by photo-warps/test: dhpf models promote quickstart" in said
    assert main(["describe", "quickstart", "--file", str(FILE), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"]["backbone"] == "efficientnet_lite0" and facts["judged_on"] == ["photo-warps/test"]
    assert {"output": "train on photo-warps/train", "state": "to do"} in facts["outputs"]
    assert not (folder / "dhpf-work").exists()


def test_list_names_every_workflow(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--file", str(FILE)]) == 0
    said = capsys.readouterr().out
    assert "quickstart" in said and "match-collection" in said
    assert main(["list", "--file", str(FILE), "--json"]) == 0
    assert {"quickstart", "match-collection"} <= {workflow["name"] for workflow in json.loads(capsys.readouterr().out)}


def test_a_dry_run_says_what_every_stage_would_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--set", "shard.sources.photo-warps.options={views: 2, keypoints: 6}"]
    assert main(["run", "quickstart", "--file", str(FILE), "--dry-run", *small]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["stage", "output", "state", "pairs"]
    assert ["shard", "photo-warps/train", "to", "do", "16"] in rows
    assert [
        "search",
        "on",
        "photo-warps/val",
        "to",
        "do",
        "4",
    ] in rows
    assert main(["run", "quickstart", "--file", str(FILE), "--dry-run", *small, "--only", "match", "--json"]) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    assert (output["stage"], output["title"], output["num_pairs"]) == ("match", "photo-warps/test", 10)
    assert not (folder / "dhpf-work" / "quickstart").exists()


LEARN_AND_MATCH = """
mine:
  summary: Learns on warped photos, and matches a folder of images with what is learned.
  model: {backbone: efficientnet_lite0}
  shard:
    sources:
      photo-warps: {kind: photo_warps, splits: [train, val], options: {views: 2, keypoints: 6}}
  search: {on: photo-warps/val}
  train: {on: photo-warps}
  match:
    collections:
      photos: {root: photos, select: all}
"""


@pytest.mark.parametrize(
    ("setting", "known", "unknown"),
    [
        ("match.model=trained", "1 block, 28 pairs, 8 images to read", "hours and price depend on the layers that the"),
        ("match.model=searched", "8 images, 28 pairs", "blocks, hours and price depend on the layers that the search"),
        ("model={selection: fixed, layers: [3], projection: residual}", "1 block, 28 pairs, 8 images to read", None),
    ],
)
def test_a_dry_run_says_what_is_known_before_the_model_is_made(
    folder: Path,
    cats_and_cups: Path,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    known: str,
    unknown: str | None,
) -> None:
    (folder / "workflows.yaml").write_text(LEARN_AND_MATCH)
    settings = ["--set", setting, "--set", "model.backbone=efficientnet_lite0"]
    settings += ["--set", "match.collections.photos.max_pairs=100"]
    assert main(["run", "mine", "--dry-run", "--data", str(cats_and_cups), *settings]) == 0
    said = capsys.readouterr().out.splitlines()
    estimate = said[said.index("photos:") + 1 :]
    assert estimate[0].startswith(known)
    if unknown is None:
        assert estimate[-1].startswith("about ") and "actor hours" in estimate[-1]
    else:
        assert estimate[-1].startswith(unknown)
        assert not any("actor hours" in line or "ms per" in line for line in estimate)


def test_other_settings_are_refused_before_anything_starts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under another name the same workflow has a folder of its own."""
    (folder / "datasets" / "photos").mkdir(parents=True)
    flow = load_workflow(FILE, "match-folder", [], (folder / "datasets").resolve())
    assert flow.match is not None
    StageOutput(folder / "dhpf-work" / "match-folder" / "match" / "photos").plan(
        planned_settings(flow.match, "photos") | {"tasks": []}
    )
    run = ["run", "match-folder", "--file", str(FILE), "--set", "match.collections.photos.select=all"]
    others_cluster = ray.is_initialized()  # of other tests in this process
    assert main(run) == 2
    said = capsys.readouterr().err
    assert 'select: "within-folders" -> "all"' in said and "use another --name or --work folder" in said
    assert ray.is_initialized() == others_cluster and "starting Ray" not in said
    assert main(["describe", *run[1:]]) == 0
    assert "begun" in capsys.readouterr().out
    assert main(["describe", *run[1:], "--name", "all-pairs"]) == 0
    assert "begun" not in capsys.readouterr().out
    assert main([*run, "--name", "../up"]) == 2
    assert "--name: '../up' must consist of letters" in capsys.readouterr().err


def test_a_users_own_workflows_win_over_those_that_the_package_brings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("quickstart") and said[-1].startswith("from /") and "pipelines/workflows.yaml" in said[-1]
    (folder / "workflows.yaml").write_text("mine: {summary: All my own., model: {}}")
    assert main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["mine  All my own.", "from workflows.yaml"]
    assert main(["describe", "quickstart"]) == 2
    assert "workflow 'quickstart': not in workflows.yaml" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dhpf 0.")


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [(["--help"], HEAVY), (["match", "--help"], HEAVY), (["models", "list", "--help"], HEAVY)],
)
def test_a_command_imports_only_what_it_uses(tmp_path: Path, arguments: list[str], unneeded: tuple[str, ...]) -> None:
    script = f"""
import sys
from dhpf.pipelines.__main__ import main
assert main({arguments!r}) == 0
print([name for name in {unneeded!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_weights_count_without_a_model_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    picture = str(tmp_path / "a.png")
    assert main(["match", picture, picture, "--weights", str(tmp_path / "none.pth")]) == 2
    assert "no weights file" in capsys.readouterr().err


def test_names_do_not_reach_a_terminal_as_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["match", "\x1b]0;owned\x07.jpg", "b.jpg"]) == 2
    assert "\\u001b]0;owned\\u0007.jpg" in (said := capsys.readouterr().err) and "\x1b" not in said


def test_an_error_that_nobody_foresaw_is_one_sentence_and_a_file(
    folder: Path, no_cluster: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raise_as_ray_does(*_: object) -> None:
        cause = ZeroDivisionError("division by\nzero" + " and more" * 100)
        cause.add_note("while it did block-000007")
        raise RayTaskError("work", "pages\nof s3://me:secret@host/x\n", cause)

    monkeypatch.setattr(WorkflowRun, "run", raise_as_ray_does)
    monkeypatch.setattr(WorkflowRun, "check", lambda *_: None)
    arguments = ["run", "match-folder", "--data", str(folder), "--work", str(folder / "w")]
    assert main([*arguments, "--quiet"]) == 1
    said = capsys.readouterr().err
    [file] = (folder / "w" / "match-folder" / "errors").iterdir()
    assert said.startswith("dhpf: ZeroDivisionError while it did block-000007: division by zero and more")
    assert said.count("\n") == 1 and f"; all of it is in {file}; " in said and len(said) < 600
    kept = file.read_text()
    assert "pages" in kept and "raise_as_ray_does" in kept and "secret" not in kept
