"""Kills a training again and again, half of the times within a save, and compares the final weights bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from safetensors import safe_open

from dhpf.manifest import read_manifest
from dhpf.pipelines.training.checkpoints import RAY_RUN
from dhpf.storage import location_of

ROOT = Path(__file__).parents[2]

SETTINGS = (
    "shard.sources.photo-warps.options={views: 2, keypoints: 6}",
    "model.image_side=96",
    *("search=null", "evaluate=null", "match=null", "train.gates_start=random", "train.num_workers=1"),
    *("train.epochs=5", "train.batch_size=4", "train.checkpoint_steps=1", "train.kept_maps_mb=0"),
)
"""A training of seconds, with a save after each step."""

PATIENCE_SECONDS = 1800.0
"""Longest wait for a run to end or to come to a save."""

MOST_STARTS = 10
"""Of one run, on a machine that is too busy for Ray to start in time."""


def training_kills(seed: int, num_kills: int, settings: Sequence[str] = SETTINGS) -> Iterator[dict[str, Any]]:
    """Trains undisturbed, then with kills of the driver and all its processes, and goes on each time.

    A training that is done before its next kill is compared, and another begins.

    Args:
        seed: of the moments.
        num_kills: how many; the first half comes within a save: when files of a checkpoint are there, and not all.

    Yields:
        for each training that was killed: "seed"; "kills", and "within_a_save", how many of them were; "runs" that
        were begun; "is_equal", whether its final weights are byte for byte the undisturbed training's; "seconds".
    """
    draw = random.Random(seed)
    kills = within = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        undisturbed = Path(name) / "undisturbed"
        _finish(undisturbed, settings)
        for number in itertools.count(1):
            started, disturbed = time.monotonic(), Path(name) / f"disturbed{number}"
            struck = list[bool]()
            while kills + len(struck) < num_kills:
                was_within = _killed(disturbed, settings, draw, within_a_save=within + sum(struck) < num_kills / 2)
                if was_within is None:
                    break
                struck.append(was_within)
                print(f"  kill {kills + len(struck)}{', within a save' if was_within else ''}", flush=True)
            _finish(disturbed, settings)
            kills, within = kills + len(struck), within + sum(struck)
            yield {
                "seed": seed,
                "kills": len(struck),
                "within_a_save": sum(struck),
                "runs": len(struck) + 1,
                "is_equal": _weights(disturbed) == _weights(undisturbed) is not None,
                "seconds": round(time.monotonic() - started),
            }
            if kills >= num_kills:
                return


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
    """Runs the training to its end, at once where it is done."""
    for _ in range(MOST_STARTS):
        if _ended_well(_started(work, settings), work):
            return
    raise RuntimeError(f"the training in {work} does not begin on this machine")


def _ended_well(process: subprocess.Popen[bytes], work: Path) -> bool:
    """Waits for a run's end; false where Ray did not start, as on a machine that is too busy.

    Raises:
        RuntimeError: it failed otherwise.
    """
    status = process.wait(PATIENCE_SECONDS)
    said = (work / "log").read_text()[-2000:]
    if status and "Ray does not start" not in said:
        raise RuntimeError(f"the training in {work} failed: {said}")
    return not status


def _killed(work: Path, settings: Sequence[str], draw: random.Random, *, within_a_save: bool) -> bool | None:
    """Runs the training until it is killed; whether that was within a save, None if the training was done before."""
    wanted = draw.randint(2, 3)
    for _ in range(MOST_STARTS):
        process, known = _started(work, settings), set(_checkpoints(work))
        if _stopped(process, work, known, wanted, draw, within_a_save=within_a_save):
            was_within = _is_partial(max(set(_checkpoints(work)) - known))
            _kill(process)
            return was_within
        if _ended_well(process, work):
            return None
    raise RuntimeError(f"the training in {work} does not begin on this machine")


def _stopped(
    process: subprocess.Popen[bytes],
    work: Path,
    known: set[Path],
    wanted: int,
    draw: random.Random,
    *,
    within_a_save: bool,
) -> bool:
    """Watches a run until all its processes stand still at a moment for a kill; false where it ended before.

    Args:
        known: its checkpoints at the beginning.
        wanted: how many more there have to be.
    """
    new, tree, deadline = set[Path](), list[psutil.Process](), time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        new |= set(_checkpoints(work)) - known  # Ray removes old ones
        if new and not tree:
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        if len(new) >= wanted and (_is_partial(max(new)) if within_a_save else draw.random() < 0.02):
            _signal(tree, signal.SIGSTOP)
            if not within_a_save or _is_partial(max(new)):
                return True
            _signal(tree, signal.SIGCONT)  # the save was done before all stood still
        time.sleep(0.0005)
    return False


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
    """Digest of the final weights and their header, whose order is another in each file; None before the end."""
    folder = location_of(work / "quickstart" / "train")
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    entry = manifest.commits[0].files["best.safetensors"]
    digest = hashlib.sha256()
    with safe_open(str(folder / str(entry["key"])), "np") as file:
        digest.update(repr(sorted(file.metadata().items())).encode())
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return digest.hexdigest()
