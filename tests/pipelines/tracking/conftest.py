import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhpf.config import ModelConfig
from dhpf.matcher import Matcher
from dhpf.pipelines.tracking.model_card import ModelCard, TrainingData
from dhpf.pipelines.tracking.runs import StageRun, workflow_run
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import location_of


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """A store in a folder whose name must be escaped in URIs and in filters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Tracker(tmp_path_factory.mktemp("work") / 'o\'brien "ü" 100%')


@pytest.fixture
def train_run(tracker: Tracker, tmp_path: Path) -> Iterator[StageRun]:
    """The open run of a train stage."""
    with (
        workflow_run(tracker, "w", location_of(tmp_path / "f")) as parent,
        parent.stage("train") as run,
    ):
        run.log_config({"epochs": 2})
        yield run


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The paths of two checkpoints with different contents."""
    paths = [tmp_path_factory.mktemp("checkpoints") / f"{n}.safetensors" for n in range(2)]
    for path, divisor in zip(paths, (8, 4), strict=True):
        Matcher(ModelConfig(projection_divisor=divisor)).save(path)
    return paths


@pytest.fixture
def card() -> ModelCard:
    training = {"epochs": 2, "learning_rate": 0.03}
    return ModelCard(ModelConfig(), training, (TrainingData("a/train", "photo_warps", 16, "f1"),), {"val_pck": 0.5})


@pytest.fixture
def free_port() -> int:
    """A port of this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
