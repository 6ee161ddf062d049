"""`make curves`: the loss curve of one, two and three workers, and of a training that lost its workers on the way.

Fifty strongly supervised steps on warped photos with the installed backbone, in real processes. Writes
docs/training-curves.png, and says how far the curves lie from each other.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from matplotlib.figure import Figure

from dhpf.config import ModelConfig, SupervisionConfig
from dhpf.drawing import save_picture
from dhpf.drawing.curves import plot_curves
from dhpf.drawing.figures import legend_below, new_figure
from dhpf.drawing.style import TEXT_POINTS
from dhpf.pairs import open_pair_source
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.training.all_workers import all_workers
from dhpf.pipelines.training.learner import Learner
from dhpf.pipelines.training.pair_dataset import PairDataset, epoch_steps
from dhpf.pipelines.training.state import TrainingState
from dhpf.planning.blocks import plan_blocks
from dhpf.records import PairRecord
from dhpf.shards.shards import Shard, encode_shard

NUM_STEPS = 50
KILLED_AFTER = 20
EQUAL = 1e-9
"""Relative differences below this are drawn as this, because single precision cannot tell them from 0."""
MODEL = ModelConfig(projection_divisor=1, exponent=4)
CONFIG = TrainConfig(
    on="photos",
    supervision=SupervisionConfig(selection_rate=0.7),
    learning_rate=0.1,
    projection_start="near-identity",
)


@dataclass(frozen=True)
class Part:
    """Consecutive steps of a training, on a number of workers.

    Attributes:
        folder: holds the shards, the kept maps, the losses, and the training state, which is read at the start and
            written at the end.
        first, last: the steps, from `first` up to but without `last`.
        killed: whether the workers kill themselves once the state is written.
    """

    folder: Path
    num_workers: int
    first: int
    last: int
    killed: bool = False


def learn(rank: int, part: Part, port: int) -> None:
    """Runs in each process of a part: takes its steps; the first process writes the losses and the state."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=part.num_workers)
    data = PairDataset(_open(part.folder))
    learner = Learner(MODEL, CONFIG, data, data, part.folder / "maps", all_workers(), rank)
    kept = part.folder / "state"
    state = TrainingState.read(kept, learner) if part.first else TrainingState.start(learner)
    order = [(e, s) for e in range(NUM_STEPS) for s in epoch_steps(len(data), CONFIG.batch_size, CONFIG.seed, e)]
    steps = order[part.first : part.last]
    losses = [learner.step(learner.load(step, epoch)).terms["loss"] for epoch, step in steps]
    if rank == 0:
        (part.folder / f"losses-{part.first}.json").write_text(json.dumps(losses))
        with state.written(learner) as written:
            shutil.copytree(written, kept, dirs_exist_ok=True)
    dist.barrier()
    if part.killed:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.destroy_process_group()


def curve(parts: list[Part]) -> list[float]:
    """The losses of several parts one after the other, each in new processes."""
    losses: list[float] = []
    spawn = multiprocessing.get_context("spawn")
    for part in parts:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        processes = [spawn.Process(target=learn, args=(rank, part, port)) for rank in range(part.num_workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            expected = -signal.SIGKILL if part.killed else 0
            if process.exitcode != expected:
                raise RuntimeError(f"a worker ended with {process.exitcode}, not {expected}")
        losses += json.loads((part.folder / f"losses-{part.first}.json").read_text())
    return losses


def _write_shards(folder: Path) -> None:
    source = open_pair_source("photo_warps", {"views": 8})
    pairs = [p for p in source.pairs("train") if isinstance(p, PairRecord)]
    encoded = encode_shard(next(plan_blocks(pairs, max_pairs=999, max_images=999)), source.read)
    (folder / "shard.tar").write_bytes(encoded.tar)
    (folder / "index.json").write_bytes(encoded.index)


def _open(folder: Path) -> ShardSet:
    shard = Shard(folder / "shard.tar", folder / "index.json")
    return ShardSet("photos/train", (("0", shard),), ("image",), "", {"num_pairs": len(shard)})


def draw(curves: dict[str, list[float]]) -> Figure:
    """The loss of one worker, and below how far the other curves lie from it, on a logarithmic axis."""
    figure = new_figure(6.4, 4.6, "One curve, however many workers share the batch")
    above, below = figure.subplots(2, 1, sharex=True)
    (alone_name, alone), *others = curves.items()
    steps = [n + 1.0 for n in range(len(alone))]
    plot_curves(above, {alone_name: list(zip(steps, alone, strict=True))})
    above.set_ylabel(f"loss, {alone_name}", fontsize=TEXT_POINTS)
    apart = {name: [max(EQUAL, relative(x, y)) for x, y in zip(losses, alone, strict=True)] for name, losses in others}
    plot_curves(below, {name: list(zip(steps, values, strict=True)) for name, values in apart.items()})
    below.set_yscale("log")
    below.set_ylim(EQUAL, 1)
    below.set_ylabel("relative difference from it", fontsize=TEXT_POINTS)
    below.set_xlabel(f"step (at the lower edge: equal to the last digit; killed after step {KILLED_AFTER})")
    below.xaxis.label.set_size(TEXT_POINTS)
    legend_below(figure, list(apart), below.get_lines())
    return figure


def relative(x: float, y: float) -> float:
    """How far x lies from y, as a share of y."""
    return abs(x - y) / abs(y)


def main() -> None:
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_shards(folder)
        for count in (1, 2, 3):
            curves[f"{count} worker{'s' if count > 1 else ''}"] = curve([Part(folder, count, 0, NUM_STEPS)])
        halves = [Part(folder, 2, 0, KILLED_AFTER, killed=True), Part(folder, 3, KILLED_AFTER, NUM_STEPS)]
        curves[f"2 killed at {KILLED_AFTER}, then 3"] = curve(halves)
    alone = curves["1 worker"]
    for title, losses in curves.items():
        furthest = max(relative(x, y) for x, y in zip(losses, alone, strict=True))
        print(f"{title:<44} {losses[0]:.6f} ... {losses[-1]:.6f}, furthest from one worker: {furthest:.1e} relative")
    out = Path(__file__).parents[1] / "docs" / "training-curves.png"
    save_picture(draw(curves), out)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
