from collections.abc import Iterator
from pathlib import Path

import pytest

from dhpf.pipelines.promotion.registry import Registry
from dhpf.pipelines.tracking.tracker import Tracker


@pytest.fixture(scope="session")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """A real MLflow store; making one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Tracker(tmp_path_factory.mktemp("work"))


@pytest.fixture
def registry(tracker: Tracker, tmp_path: Path) -> Iterator[Registry]:
    """A registry with versions 1 to 4 of the model m, none of them champion and none with a checkpoint."""
    tracker.client.create_registered_model("m")
    for _ in range(4):
        tracker.client.create_model_version("m", (tmp_path / "nothing").as_uri())
    yield Registry(tracker)
    tracker.client.delete_registered_model("m")
