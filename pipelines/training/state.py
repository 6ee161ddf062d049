"""The state of a training, which a checkpoint holds: progress, weights and momenta, in files without pickle."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dhpf.checkpoint import load_network, save_network
from dhpf.manifest import damaged, read_json, sealed_json
from dhpf.pipelines.training.learner import Learner
from dhpf.storage import Location, location_of
from dhpf.supervision import Objective

BEST, CURRENT, OPTIMISER, PROGRESS = "best.safetensors", "model.safetensors", "optimiser.safetensors", "progress.json"

FILES = (BEST, CURRENT, OPTIMISER)
"""What a checkpoint holds besides PROGRESS, which is written last and has their digests."""

_REMEDY = "an earlier checkpoint, or --restart train, helps"


@dataclass
class TrainingState:
    """The progress of a training: all of its state except the learner's weights and momenta.

    Noise and order need no state: they are functions of seed, epoch and pair.

    Attributes:
        history: one entry per finished epoch: its number, mean loss terms, val_pck, number of workers at its end,
            seconds, pairs_per_second, and the selection rate of each layer.
        best_epoch: counted from 1, 0 before the first; best_pck and best_state belong to it.
        step: number of steps done in the current epoch; sums, open_sums, num_pairs and seconds are over these.
    """

    best_state: dict[str, Tensor]
    open_sums: Tensor
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_pck: float = -1.0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    num_pairs: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, learner: Learner) -> TrainingState:
        """The state before the first step."""
        return cls(learner.state(), torch.zeros(len(learner.network.backbone), dtype=torch.float64))

    @property
    def epoch(self) -> int:
        """The epoch that is being learned, counted from 0."""
        return len(self.history)

    def add(self, objective: Objective, step: Sequence[int], seconds: float) -> None:
        """Adds a finished step to the epoch's sums."""
        for name, value in objective.terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * len(step)
        self.open_sums += objective.open_shares.cpu().double() * len(step)
        self.num_pairs += len(step)
        self.seconds += seconds
        self.step += 1

    def end_epoch(self, pck: float, learner: Learner) -> dict[str, Any]:
        """Closes the epoch with its validation PCK; returns its entry in the history."""
        entry: dict[str, Any] = {name: value / self.num_pairs for name, value in self.sums.items()}
        entry |= {
            "epoch": self.epoch + 1,
            "val_pck": pck,
            "workers": learner.workers.count,
            "seconds": round(self.seconds, 2),
            "pairs_per_second": round(self.num_pairs / max(self.seconds, 1e-9), 3),
            "selection_rates": (self.open_sums / self.num_pairs).tolist(),
        }
        self.history.append(entry)
        if pck > self.best_pck:
            self.best_epoch, self.best_pck, self.best_state = self.epoch, pck, learner.state()
        self.step, self.sums, self.num_pairs, self.seconds = 0, {}, 0, 0.0
        self.open_sums = torch.zeros_like(self.open_sums)
        return entry

    @contextlib.contextmanager
    def written(self, learner: Learner) -> Iterator[Path]:
        """A temporary folder with all that a training needs to go on; removed after the block."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            network, current = learner.network, learner.state()
            save_network(network, folder / CURRENT)
            network.load_state_dict(self.best_state, strict=False)
            save_network(network, folder / BEST)
            network.load_state_dict(current, strict=False)
            momenta = {n: m.cpu().contiguous() for n, m in learner.momenta().items()}
            safetensors.torch.save_file(momenta, folder / OPTIMISER)
            digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
            (folder / PROGRESS).write_bytes(sealed_json(self._progress() | {"files": digests}))
            yield folder

    def _progress(self) -> dict[str, Any]:
        kept = ("history", "best_epoch", "best_pck", "step", "sums", "num_pairs", "seconds")
        return {name: getattr(self, name) for name in kept} | {"open_sums": self.open_sums.tolist()}

    @classmethod
    def read(cls, folder: Path, learner: Learner) -> TrainingState:
        """Reads what `written` wrote, and restores the learner from it.

        Raises:
            Damaged: it is not as it was written.
        """
        weights = learner.network.config.weights
        progress = require_whole(location_of(folder))
        learner.restore(
            load_network(folder / CURRENT, weights).learned_state(), safetensors.torch.load_file(folder / OPTIMISER)
        )
        progress["open_sums"] = torch.tensor(progress["open_sums"], dtype=torch.float64)
        return cls(best_state=load_network(folder / BEST, weights).learned_state(), **progress)


def require_whole(checkpoint: Location) -> dict[str, Any]:
    """Checks the files of a checkpoint against the digests that it holds; gives its progress without them.

    One of version 0.1 has no digests; its files only have to be there.

    Raises:
        Damaged: a file is not as it was written.
    """
    progress: dict[str, Any] = read_json(checkpoint / PROGRESS, _REMEDY)
    digests = progress.pop("files", {})
    for name in FILES:
        content = (checkpoint / name).find()
        digest = None if content is None else hashlib.sha256(content).hexdigest()
        if digest is None or digest != digests.get(name, digest):
            raise damaged(checkpoint / name, _REMEDY)
    return progress
