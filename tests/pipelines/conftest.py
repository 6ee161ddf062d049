import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dhpf.data.blocks import plan_blocks
from dhpf.data.shards import Shard, encode_shard
from dhpf.pairs import open_pair_source
from dhpf.records import PairRecord
from pipelines.shard_set import ShardSet


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A private Ray cluster in this process, its files in a folder with a short name (sockets need one)."""
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory(prefix="ray") as folder:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.delenv("RAY_ADDRESS", raising=False)
        import ray

        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


@pytest.fixture
def kill_tree() -> Callable[[subprocess.Popen[bytes]], None]:
    return _kill_tree


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """The driver and all that it started, by pid: as when a machine loses power."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    for child in children:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children, timeout=30)


@pytest.fixture(scope="module")
def training_sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, ShardSet]:
    """Few warped photos to train on and to validate with."""
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
