"""Kills a training again and again, half of the times within a save, and compares the final weights bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from dhpf.manifest import read_manifest
from dhpf.pipelines.training.checkpoints import RAY_RUN
from dhpf.storage import location_of

ROOT = Path(__file__).parents[2]

SETTINGS = (
    "shard.sources.photo-warps.options={views: 2, keypoints: 6}",
    "model.image_side=96",
    *("search=null", "evaluate=null", "match=null", "train.gates_start=random", "train.num_workers=1"),
    *("train.epochs=8", "train.batch_size=4", "train.checkpoint_steps=1", "train.kept_maps_mb=0"),
)
"""A training of seconds, with a save after each step."""

PATIENCE_SECONDS = 1800.0
"""Longest wait for a run to end or to come to a save."""


def training_kills(seed: int, num_kills: int, settings: Sequence[str] = SETTINGS) -> dict[str, Any]:
    """Trains undisturbed, then with kills of the driver and all its processes, and goes on each time.

    A training that is done before its next kill is compared, and another begins.

    Args:
        seed: of the moments.
        num_kills: how many; the first half comes within a save: when files of a checkpoint are there, and not all.

    Returns:
        "seed"; "kills", and "within_a_save", how many of them were; "trainings", how many these were; "different", the
        number of those whose final weights are not byte for byte the undisturbed training's; "runs" that were begun;
        "seconds".
    """
    draw, started = random.Random(seed), time.monotonic()
    kills = within = runs = trainings = different = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        undisturbed = Path(name) / "undisturbed"
        _finish(undisturbed, settings)
        while kills < num_kills:
            trainings += 1
            disturbed = Path(name) / f"disturbed{trainings}"
            while kills < num_kills and _weights(disturbed) is None:
                runs += 1
                was_within = _killed(disturbed, settings, draw, within_a_save=within * 2 < num_kills)
                if was_within is not None:
                    kills, within = kills + 1, within + was_within
                    print(f"  kill {kills}{', within a save' if was_within else ''}", flush=True)
            if _weights(disturbed) is None:
                runs += 1
                _finish(disturbed, settings)
            different += _weights(disturbed) != _weights(undisturbed)
    return {
        "seed": seed,
        "kills": kills,
        "within_a_save": within,
        "trainings": trainings,
        "different": different,
        "runs": runs,
        "seconds": round(time.monotonic() - started),
    }


def _started(work: Path, settings: Sequence[str]) -> subprocess.Popen[bytes]:
    sets = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "dhpf.pipelines", "run", "quickstart", "--work", str(work), "--quiet", *sets]
    work.mkdir(parents=True, exist_ok=True)
    with (work / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=_environment())


def _environment() -> Mapping[str, str]:
    left_out = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _finish(work: Path, settings: Sequence[str]) -> None:
    process = _started(work, settings)
    if process.wait(PATIENCE_SECONDS) != 0:
        raise RuntimeError(f"the training in {work} failed: {(work / 'log').read_text()[-2000:]}")


def _killed(work: Path, settings: Sequence[str], draw: random.Random, *, within_a_save: bool) -> bool | None:
    """Runs the training until it is killed; whether that was within a save, None if the training was done before."""
    known, new = set(_checkpoints(work)), set[Path]()
    process = _started(work, settings)
    tree: list[psutil.Process] = []
    wanted, deadline = draw.randint(2, 3), time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        new |= set(_checkpoints(work)) - known  # Ray removes old ones
        if new and not tree:
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        if len(new) >= wanted and (_is_partial(max(new)) if within_a_save else draw.random() < 0.02):
            _signal(tree, signal.SIGSTOP)
            was_within = _is_partial(max(new))
            if was_within or not within_a_save:
                _kill(process)
                return was_within
            _signal(tree, signal.SIGCONT)  # the save was done before all stood still
        time.sleep(0.0005)
    if process.poll() is None:
        _kill(process)
        raise RuntimeError(f"the training in {work} came to no save")
    if process.returncode != 0:
        raise RuntimeError(f"the training in {work} failed: {(work / 'log').read_text()[-2000:]}")
    return None


def _signal(tree: Sequence[psutil.Process], number: signal.Signals) -> None:
    """Sends a signal to all processes of a tree, to those that others have started first."""
    for one in reversed(tree):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a driver and all processes that it started, as when a machine loses power."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    _signal(tree, signal.SIGSTOP)
    _signal(tree, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(tree[1:], timeout=30)


def _checkpoints(work: Path) -> list[Path]:
    return list((work / "quickstart" / "train" / RAY_RUN).glob("checkpoint_*/"))


def _is_partial(checkpoint: Path) -> bool:
    """Whether some files of a checkpoint are there, and not all; no for one that was removed."""
    try:
        names = {path.name for path in checkpoint.iterdir()}
    except FileNotFoundError:
        return False
    return len(names) < 4 or "progress.json" not in names


def _weights(work: Path) -> str | None:
    """Digest of the final weights; None while the training is not complete."""
    folder = location_of(work / "quickstart" / "train")
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    entry = manifest.commits[0].files["best.safetensors"]
    return hashlib.sha256((folder / str(entry["key"])).read()).hexdigest()
