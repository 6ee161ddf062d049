"""The model as MLflow loads it: by alias, without pickle, with a reason for a pair that cannot be used."""

import base64
import io
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import skimage.data
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.matcher import Matcher
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.registering import SIGNATURE
from dhpf.pipelines.tracking.runs import workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import location_of
from tests.pipelines.tracking.served import answers, stop

POINTS = [[100.0, 80.0], [300.0, 200.0]]


def encoded(image: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Matcher]:
    """Folder of the store, the model as MLflow loads it, and the matcher that was registered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        work = tmp_path_factory.mktemp("work")
        matcher = Matcher(ModelConfig(selection="all", image_side=128))
        matcher.save(work / "m.safetensors")
        tracker = Tracker(work)
        with workflow_run(tracker, "w", work) as parent, parent.stage("train") as run:
            run.log_config({})
            run.register("dhpf", location_of(work / "m.safetensors"), ModelCard(matcher.network.config, {}, (), {}))
        patch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
        return work, mlflow.pyfunc.load_model("models:/dhpf@latest-trained"), matcher


def test_it_answers_as_the_matcher_does(registered: tuple[Path, Any, Matcher]) -> None:
    _, model, matcher = registered
    source, target = skimage.data.chelsea(), skimage.data.chelsea()[:, 40:]
    row = {"source": encoded(source, "PNG"), "target": encoded(target, "PNG"), "points": POINTS}
    (answer,) = model.predict(pd.DataFrame([row])).to_dict("records")
    points, valid, confidence = matcher.transfer(source, target, POINTS)
    np.testing.assert_array_equal(np.array(answer["points"], dtype=np.float32), points)
    assert answer["valid"] == valid.tolist() == [True, True]
    assert answer["confidence"] == confidence.tolist()
    assert answer["reason"] == ""
    assert list(answer) == SIGNATURE.outputs.input_names()


def test_a_pair_that_cannot_be_used_costs_only_its_row(registered: tuple[Path, Any, Matcher]) -> None:
    _, model, _ = registered
    photo = encoded(skimage.data.chelsea(), "JPEG")
    whole = {"source": photo, "target": photo, "points": POINTS}
    changes: list[dict[str, Any]] = [
        {"source": photo[:5000]},
        {},
        {"target": b"not an image"},
        {"points": [[9999.0, 1.0]]},
        {"points": [[1.0, 2.0, 3.0]]},
    ]
    answer = model.predict(pd.DataFrame([whole | change for change in changes]))
    beginnings = ["image source: damaged", "", "image target: not a", "points: (9999, 1) lies outside", "points: must"]
    for reason, beginning in zip(answer["reason"], beginnings, strict=True):
        assert reason.startswith(beginning) and bool(reason) == bool(beginning)
    assert [len(points) for points in answer["points"]] == [0, 2, 0, 0, 0]


def test_nothing_is_pickled(registered: tuple[Path, Any, Matcher]) -> None:
    work, _, _ = registered
    names = {path.name for path in (work / "mlartifacts").rglob("*") if path.is_file()}
    assert {"MLmodel", "checkpoint.safetensors", "registered_model.py"} <= names
    code = next((work / "mlartifacts").rglob("code"))
    assert (code / "dhpf" / "matcher.py").is_file() and not (code / "dhpf" / "pipelines").exists()
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt"))]


def environment_without_dhpf(folder: Path) -> dict[str, str]:
    """Variables of an environment that has all packages of this one but dhpf."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    # Folders that a .pth file names are not searched for such files in their turn, as one that installs dhpf in place.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    program = folder / "bin" / "uvicorn"  # MLflow calls it
    program.write_text(f"#!{folder}/bin/python\nfrom uvicorn.main import main\n\nmain()\n")
    program.chmod(0o755)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return variables | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def test_mlflow_serves_it_where_dhpf_is_not_installed(
    registered: tuple[Path, Any, Matcher], tmp_path: Path, free_port: int
) -> None:
    work, _, matcher = registered
    variables = environment_without_dhpf(tmp_path / "venv") | {"MLFLOW_TRACKING_URI": f"sqlite:///{work / 'mlflow.db'}"}
    variables |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    python = str(tmp_path / "venv" / "bin" / "python")
    without = subprocess.run(
        [python, "-c", "import dhpf"], env=variables, cwd=tmp_path, capture_output=True, check=False
    )
    assert b"No module named 'dhpf'" in without.stderr
    serve = [python, "-m", "mlflow", "models", "serve", "-m", "models:/dhpf/1", "--env-manager", "local"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*serve, "--port", str(free_port)], env=variables, cwd=tmp_path, stdout=log, stderr=log
        )
    try:
        uri, deadline = f"http://127.0.0.1:{free_port}", time.monotonic() + 300
        while not answers(f"{uri}/ping"):
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.5)
        source, target = skimage.data.chelsea(), skimage.data.chelsea()[:, 40:]
        images = [base64.b64encode(encoded(image, "PNG")).decode() for image in (source, target)]
        sent = {"dataframe_split": {"columns": ["source", "target", "points"], "data": [[*images, POINTS]]}}
        answer = requests.post(f"{uri}/invocations", json=sent, timeout=120)
    finally:
        stop(server)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["predictions"]
    points, valid, _ = matcher.transfer(source, target, POINTS)
    np.testing.assert_allclose(row["points"], points, atol=1e-3)
    assert row["valid"] == valid.tolist() == [True, True] and row["reason"] == ""
