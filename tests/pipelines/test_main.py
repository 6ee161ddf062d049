"""The command line, as a user meets it: in a process of its own, in an empty folder."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

FILE = Path(__file__).parents[2] / "workflows.yaml"
NO_SUCH_LAYER = "evaluate.methods={one: {selection: fixed, layers: [99]}}"


def dhpf(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dhpf.pipelines", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def photo(path: Path, shift: int = 0) -> Path:
    import skimage.data

    Image.fromarray(skimage.data.chelsea()[:, shift : shift + 350]).save(path)
    return path


def test_two_images_are_matched_and_drawn(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.png", shift=40)
    done = dhpf(tmp_path, "match", "a.jpg", "b.png", "--output", "new/folder/m.png")
    assert done.returncode == 0, done.stderr
    assert " mutual matches; layers used: 5, 8, 10, 11, 15" in done.stdout
    assert np.asarray(Image.open(tmp_path / "new" / "folder" / "m.png")).std() > 20
    done = dhpf(tmp_path, "match", "a.jpg", "b.png", "--points", "150,100;200,200")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("150,100 -> ")
    x, y = (float(number) for number in first.split("-> ")[1].split("  ")[0].split(","))
    assert abs(x - 110) < 8 and abs(y - 100) < 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["match", "none.jpg", "a.jpg"], "image none.jpg: no such file"),
        (["match", "cut.jpg", "a.jpg"], "image cut.jpg: damaged or truncated"),
        (["match", "a.jpg", "notes.txt"], "image notes.txt: not a JPEG"),
        (["match", "a.jpg", "a.jpg", "--model", "evil.pth"], "a pickle that holds more than tensors"),
        (["match", "a.jpg", "a.jpg", "--model", "r.safetensors"], "4 layers; published ones have 17"),
        (["match", "a.jpg", "a.jpg", "--model", "none.safetensors"], "none.safetensors: no such file"),
        (["match", "a.jpg", "a.jpg", "--points", "1,2;x"], "write x,y;x,y"),
        (["match", "a.jpg", "a.jpg", "--points", "999,2"], "(999, 2) lies outside the source image of 350 x 300"),
        (["run", "quikstart", "--file", str(FILE)], "did you mean 'quickstart'"),
        (["run", "quickstart", "--file", str(FILE), "--set", "train.epoch=1"], "did you mean 'epochs'"),
        (["run", "quickstart", "--file", str(FILE), "--set", "model.weights=r.safetensors"], "not those of backbone"),
        (["run", "quickstart", "--file", str(FILE), "--set", NO_SUCH_LAYER], "has layers 0 to 16, not 99"),
        (["models", "promote", "quickstart", "--file", str(FILE)], "there is none yet; run a workflow that trains"),
        (["describe", "quickstart"], "workflow file workflows.yaml: no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    whole = photo(tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"run": print}))
    published = {f"reduction_ffns.{n}.0.weight": torch.zeros(8, 64, 1, 1) for n in range(4)}
    safetensors.torch.save_file(published, tmp_path / "r.safetensors")
    done = dhpf(tmp_path, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("dhpf: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr


def test_a_stage_that_cannot_be_removed_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "w" / "quickstart").mkdir(parents=True)
    (tmp_path / "w" / "quickstart" / "train").write_text("in the way")
    done = dhpf(tmp_path, "run", "quickstart", "--file", str(FILE), "--work", "w", "--restart", "train")
    assert done.returncode == 2
    assert "--restart: " in done.stderr and "train cannot be removed (Not a directory)" in done.stderr


def test_describe_needs_no_cluster(tmp_path: Path) -> None:
    done = dhpf(tmp_path, "describe", "quickstart", "--file", str(FILE))
    assert done.returncode == 0, done.stderr
    assert "train on photo-warps" in done.stdout and "to do" in done.stdout
    assert "promotion by photo-warps/test: dhpf models promote quickstart" in done.stdout
    assert not (tmp_path / "dhpf-work").exists()


def test_list_names_every_workflow(tmp_path: Path) -> None:
    done = dhpf(tmp_path, "list", "--file", str(FILE))
    assert done.returncode == 0
    assert "quickstart" in done.stdout and "match-collection" in done.stdout
