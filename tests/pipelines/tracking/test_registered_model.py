"""The model as MLflow loads it: by alias, without pickle, with a reason for a pair that cannot be used."""

import io
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import skimage.data
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.matcher import Matcher
from dhpf.pipelines.tracking.model_card import ModelCard
from dhpf.pipelines.tracking.registering import SIGNATURE, register_model
from dhpf.pipelines.tracking.runs import stage_run, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker

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
        with workflow_run(tracker, "w", work) as parent, stage_run(tracker, "w", parent, "train") as run:
            run.log_config({})
            register_model(tracker, run, "dhpf", work / "m.safetensors", ModelCard(matcher.network.config, {}, (), {}))
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
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt"))]
