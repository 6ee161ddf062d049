"""A training in this process, without Ray: its epoch with the best validation PCK is what it learned."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from dhpf.config import ModelConfig
from dhpf.model.global_batch import ALONE
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet, joined
from dhpf.pipelines.progress import CountedWork
from dhpf.pipelines.training.learner import Learner
from dhpf.pipelines.training.pair_dataset import PairDataset, epoch_steps


@dataclass(frozen=True)
class Training:
    """One training of a comparison."""

    name: str
    model: ModelConfig
    config: TrainConfig


def learn(training: Training, sets: dict[str, ShardSet], maps: Path) -> Learner:
    """Trains; the network then has the weights of the best epoch and is ready to match.

    Args:
        sets: by name, at least those that the training learns from and is validated on.
        maps: folder that keeps the backbone's maps.
    """
    learned = joined([sets[name] for name in training.config.train_sets])
    data = PairDataset(learned), PairDataset(sets[training.config.validation_set])
    layers = "-".join(map(str, training.model.fixed_layers)) or "all"
    folder = maps / f"{training.model.image_side}-{training.config.precision}-{layers}"
    config = dataclasses.replace(training.config, kept_maps_mb=20_000)
    learner = Learner(training.model, config, *data, folder, ALONE, 0)
    best = -1.0, learner.state()
    for epoch in range(config.epochs):
        steps = epoch_steps(len(data[0]), config.batch_size, config.seed, epoch)
        with CountedWork(f"{training.name}, epoch {epoch + 1}", "step", len(steps)) as work:
            for step in steps:
                learner.step(learner.load(step, epoch))
                work.update(1)
        pck = learner.mean_pck(learner.validate())
        print(training.name, "epoch", epoch + 1, "validation PCK", round(pck, 4), flush=True)
        best = max(best, (pck, learner.state()), key=lambda entry: entry[0])
    learner.network.load_state_dict(best[1], strict=False)
    learner.network.eval()
    return learner
