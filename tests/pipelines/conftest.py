from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import skimage.data
from PIL import Image

from dhpf.pairs import open_pair_source
from dhpf.pipelines import cluster
from dhpf.pipelines.__main__ import main
from dhpf.pipelines.config import CollectionConfig
from dhpf.pipelines.inputs.collection import Collection, open_collection
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.planning.blocks import plan_blocks
from dhpf.planning.select import All
from dhpf.records import PairRecord
from dhpf.shards.shards import Shard, encode_shard
from tests.trace_match import Answer, actors_here, put_here

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

WORKFLOWS = Path(__file__).parents[2] / "workflows.yaml"
DEADLY = str(Path(__file__).parents[1] / "deadly")

Killed = Callable[[], list[int]]
"""The ids of the processes that met a deadly image, in order."""


@pytest.fixture(scope="session")
def ray_cluster(store_keys: dict[str, str]) -> Iterator[None]:
    """A private Ray cluster that this process drives, its files in a folder with a short name (sockets need one).

    Its workers get the keys of S3 servers from the environment that it starts in.
    """
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory(prefix="ray") as folder:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.setenv("PYTHONPATH", DEADLY, prepend=os.pathsep)
        environment.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        environment.delenv("RAY_ADDRESS", raising=False)
        import ray

        ray.init(
            address="local",
            num_cpus=6,
            object_store_memory=200_000_000,
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


@pytest.fixture
def two_machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of a head node that runs no work, and two nodes with one CPU each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Ended:
    """The exit status and the output of a command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def command_line() -> Callable[..., list[str]]:
    """The command line of `dhpf run`, for a process of its own."""
    return _command_line


def _command_line(work: Path, workflow: str, *arguments: str, settings: Sequence[str] = ()) -> list[str]:
    return [sys.executable, "-m", "dhpf.pipelines", *_run_arguments(work, workflow, arguments, settings)]


def _run_arguments(work: Path, workflow: str, arguments: Sequence[str], settings: Sequence[str]) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    return ["run", workflow, "--file", str(WORKFLOWS), "--work", str(work), *arguments, *sets]


@pytest.fixture
def run(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Runs `dhpf run` in this process, on the session's cluster."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(cluster, "ray_cluster", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "set_ray_environment", lambda address: None)
    return _run


def _run(work: Path, workflow: str, *arguments: str, settings: Sequence[str] = ()) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(_run_arguments(work, workflow, arguments, settings))
    return Ended(status, out.getvalue(), err.getvalue())


@pytest.fixture
def tasks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Ray's tasks and actors work in this process, each call at the moment it is made: no cluster is needed."""
    import ray

    importlib.import_module("dhpf.pipelines.workflow")  # with Ray as it is: its own modules use it when imported

    def remote(**options: object) -> Callable[[Any], Any]:
        def made(worker: Any) -> Any:
            if inspect.isclass(worker):
                return actors_here(**options)(worker)
            return SimpleNamespace(remote=lambda *arguments: Answer(worker(*arguments)))

        return made

    put_here(partial(monkeypatch.setattr, ray))
    monkeypatch.setattr(ray, "remote", remote)


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `dhpf run` start no cluster."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(cluster, "ray_cluster", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "set_ray_environment", lambda address: None)


@pytest.fixture
def four_photos(tmp_path: Path) -> Path:
    """A folder of four small photos that differ little."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = skimage.data.chelsea()  # type: ignore[no-untyped-call]
    for number in range(4):
        Image.fromarray(photo[number * 8 : 100 + number * 8, :100]).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def collection(four_photos: Path) -> Collection:
    """All pairs of four photos, in blocks of at most two."""
    with open_collection("photos", CollectionConfig(str(four_photos), All(), max_pairs=2), 10**6) as opened:
        return opened


@pytest.fixture
def output(tmp_path: Path, collection: Collection) -> StageOutput:
    """An output of the match stage, planned for that collection."""
    output = StageOutput(tmp_path / "out")
    output.plan({"stage": "match", "tasks": collection.tasks})
    return output


@pytest.fixture
def cats_and_cups(tmp_path: Path) -> Path:
    """A data folder whose sub-folder `photos` holds four crops each of two photos."""
    folder = tmp_path / "data" / "photos"
    for name, photo in (("cats", skimage.data.chelsea), ("cups", skimage.data.coffee)):
        image = photo()  # type: ignore[no-untyped-call]
        (folder / name).mkdir(parents=True)
        for number in range(4):
            crop = image[number * 8 : number * 8 + 220, number * 12 : number * 12 + 300]
            Image.fromarray(crop).save(folder / name / f"{number} ü.v1.jpg", quality=92)
    return tmp_path / "data"


@pytest.fixture
def kill_tree() -> Callable[[subprocess.Popen[bytes]], None]:
    return _kill_tree


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kills the driver and all processes that it started, by pid, as a power failure would."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    for child in children:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children, timeout=30)


@pytest.fixture(scope="session")
def training_sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, ShardSet]:
    """Two small shard sets of warped photos, to train on and to validate with."""
    folder = tmp_path_factory.mktemp("shards")
    return _photo_shards(folder, "train", 2), _photo_shards(folder, "val", 1)


def _photo_shards(folder: Path, split: str, views: int) -> ShardSet:
    source = open_pair_source("photo_warps", {"views": views})
    pairs = [p for p in source.pairs(split) if isinstance(p, PairRecord)]
    encoded = encode_shard(next(plan_blocks(pairs, max_pairs=99, max_images=99)), source.read)
    (folder / f"{split}.tar").write_bytes(encoded.tar)
    (folder / f"{split}.json").write_bytes(encoded.index)
    shard = Shard(folder / f"{split}.tar", folder / f"{split}.json")
    return ShardSet(f"photos/{split}", (("0", shard),), ("image",), "digest", {"num_pairs": len(shard)})


@pytest.fixture
def deadly_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, signal.Signals], Killed]:
    """Makes an image that sends a signal to whatever process opens it, as a decoder's crash would, or its hanging.

    The image has to be called deadly; tests/deadly/sitecustomize.py notes which processes have met it.
    """
    monkeypatch.setenv("PYTHONPATH", DEADLY, prepend=os.pathsep)

    def make(path: Path, how: signal.Signals) -> Killed:
        assert path.stem == "deadly"
        path.write_bytes(b"never read")
        log = tmp_path / "killed"
        (path.parent / ".order").write_text(f"{int(how)} {log}")
        return lambda: [int(line) for line in log.read_text().split()]

    return make
