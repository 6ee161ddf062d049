"""The train stage: Ray Train workers learn gates and projections; the best epoch by validation PCK is kept."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import safetensors.torch
import torch
import torch.distributed as dist
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor

from dhpf.checkpoint import build_network, load_network, save_network
from dhpf.config import ModelConfig, SupervisionConfig
from dhpf.errors import InputError
from dhpf.model.engines.choose import choose_engine
from dhpf.model.transfer import cells_of_points, transfer
from dhpf.supervision import Objective, negative_pairs, supervise_strongly, supervise_weakly
from pipelines.code_version import code_version
from pipelines.config import TrainConfig
from pipelines.progress import shown_progress
from pipelines.shard_set import ShardSet
from pipelines.store import StageOutput, canonical_json
from pipelines.tracking import log_to_run
from pipelines.training_data import PairBatch, PairDataset, epoch_batches, gumbel_uniforms

BEST, CURRENT, OPTIMISER, PROGRESS = "best.safetensors", "model.safetensors", "optimiser.safetensors", "progress.json"


NUM_IMAGES_TO_START = 8
"""Images whose features set the scale of projections that start near the identity."""


@dataclass(frozen=True)
class TrainedModel:
    """What training gave.

    Attributes:
        checkpoint: path of the best epoch's checkpoint.
        history: one entry per epoch: its number, loss terms, val_pck, seconds, and layer selection rates.
        best_epoch: counted from 1.
    """

    checkpoint: Path
    history: list[dict[str, Any]]
    best_epoch: int


@dataclass(frozen=True)
class WorkerTask:
    """All that a training worker needs; it builds the model itself."""

    model: ModelConfig
    config: TrainConfig
    train: ShardSet
    val: ShardSet
    tracking_uri: str
    run_id: str
    board: Any
    """A ProgressBoard."""


def train(
    model: ModelConfig, config: TrainConfig, train_set: ShardSet, val_set: ShardSet, folder: Path, run: tuple[str, str]
) -> TrainedModel:
    """Trains, or goes on where an earlier run of the same plan stopped; a complete training is left as it is.

    Args:
        folder: of the stage.
        run: tracking URI and run id that the first worker logs to.

    Raises:
        InputError: a model without anything to learn, too small a batch, or pairs without keypoints for strong
            supervision.
    """
    _check(model, config, train_set, val_set)
    started = time.time()
    output = StageOutput(folder)
    plan = {
        "stage": "train",
        "model": dataclasses.asdict(model),
        "config": {k: v for k, v in dataclasses.asdict(config).items() if k not in ("resources", "max_failures")},
        "train": train_set.digest,
        "val": val_set.digest,
        "tasks": ["model"],
    }
    output.plan(plan)
    if output.manifest() is None:
        with shown_progress("pair") as board:
            files = _fit(WorkerTask(model, config, train_set, val_set, *run, board), folder)
        progress = json.loads(files[PROGRESS])
        output.commit("model", files, {"best_epoch": progress["best_epoch"], "best_pck": progress["best_pck"]})
        record = {"stage": "train", "num_pairs": train_set.num_pairs, "code_version": code_version()}
        output.finish(record | {"seconds": round(time.time() - started, 3)})
    commit = output.committed()["model"]
    progress = json.loads(output.read(commit, PROGRESS))
    return TrainedModel(output.path(commit, BEST), progress["history"], progress["best_epoch"])


def _check(model: ModelConfig, config: TrainConfig, train_set: ShardSet, val_set: ShardSet) -> None:
    if model.selection != "dynamic":
        raise InputError(f"model.selection: {model.selection!r} has nothing to learn; train needs 'dynamic'")
    smallest = min(config.batch_size, train_set.num_pairs)
    if smallest < 2 * config.num_workers:
        raise InputError(
            f"train.batch_size: {smallest} pairs per step for {config.num_workers} workers; each needs at least 2"
        )
    for shards in (train_set, val_set):
        if not shards.num_pairs:
            raise InputError(f"shard set {shards.name}: has no usable pair to train on")
    needing = [val_set] if config.supervision.kind == "weak" else [train_set, val_set]
    for shards in needing:
        if any(pair.target_keypoints is None for _, shard in shards.shards for pair in shard.pairs):
            raise InputError(f"shard set {shards.name}: its pairs have no keypoints, which training needs there")


def _fit(task: WorkerTask, folder: Path) -> dict[str, bytes]:
    config = task.config
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend="nccl" if config.resources.gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.resources.gpus > 0,
            resources_per_worker={"CPU": config.resources.cpus}
            | ({"GPU": config.resources.gpus} if config.resources.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name="ray",  # the same name in the same folder resumes
            storage_path=str(folder.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    result = trainer.fit()
    if result.checkpoint is None:
        raise RuntimeError(f"training in {folder} ended without a checkpoint")
    with result.checkpoint.as_directory() as checkpoint:
        return {name: (Path(checkpoint) / name).read_bytes() for name in (BEST, PROGRESS)}


# -- a worker ----------------------------------------------------------------------------------------------------


def train_worker(settings: Mapping[str, Any]) -> None:
    """Runs in every worker: epochs from the last checkpoint on, each followed by validation and a report."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    task: WorkerTask = settings["task"]
    context = ray.train.get_context()
    Worker(task, context.get_world_rank(), context.get_world_size()).run()


class Worker:
    """One process of data parallel training; a step's pairs are divided, gradients are added up."""

    def __init__(self, task: WorkerTask, rank: int, world_size: int) -> None:
        config = task.config
        torch.set_num_threads(max(1, int(config.resources.cpus)))
        torch.manual_seed(config.seed)
        self.task, self.rank, self.world_size = task, rank, world_size
        self.device = torch.device("cuda" if config.resources.gpus else "cpu")
        self.network = build_network(task.model).to(self.device)
        self.engine = choose_engine("auto", self.device)
        self.learned = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.SGD(self.learned.values(), lr=config.learning_rate, momentum=config.momentum)
        self.train_data = PairDataset(task.train, task.model.image_side)
        self.val_data = PairDataset(task.val, task.model.image_side)
        if config.projection_start == "near-identity":
            self._start_near_identity()
        self.history: list[dict[str, Any]] = []
        self.best_epoch, self.best_pck, self.best_state = 0, -1.0, self._learned_state()

    def _start_near_identity(self) -> None:
        """All workers look at the same images, so they start with the same projections."""
        step = max(1, len(self.train_data) // NUM_IMAGES_TO_START)
        squares = [self.train_data.batch([n]).source[0] for n in range(0, len(self.train_data), step)]
        self.network.start_near_identity(self.network.extract(torch.stack(squares).to(self.device)))

    def run(self) -> None:
        self._resume()
        for epoch in range(len(self.history), self.task.config.epochs):
            started = time.time()
            terms, rates = self._train_epoch(epoch)
            pck = self._validate()
            entry = terms | {"epoch": epoch + 1, "val_pck": pck, "seconds": round(time.time() - started, 2)}
            self.history.append(entry | {"selection_rates": rates})
            if pck > self.best_pck:
                self.best_epoch, self.best_pck, self.best_state = epoch + 1, pck, self._learned_state()
            self._report(entry)

    # -- learning --

    def _train_epoch(self, epoch: int) -> tuple[dict[str, float], list[float]]:
        config = self.task.config
        self.network.train()
        steps = epoch_batches(len(self.train_data), config.batch_size, config.seed, epoch, self.world_size)
        sums: dict[str, float] = {}
        opened = torch.zeros(len(self.network.backbone))
        title = f"train epoch {epoch + 1}/{config.epochs}"
        done = 0
        for number, workers in enumerate(steps):
            num_pairs = sum(map(len, workers))
            batch = self.train_data.batch(workers[self.rank])
            objective = self._step(batch, epoch, len(batch.numbers) / num_pairs)
            for name, value in objective.terms.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch.numbers)
            opened += objective.gates[: len(batch.numbers)].sum(dim=0).cpu()
            done += num_pairs
            if self.rank == 0:
                self.task.board.write.remote(f"{title}, loss {objective.terms['loss']:.3f}", done, len(self.train_data))
            self._log_step(epoch * len(steps) + number, objective)
        totals = self._sum_over_workers(torch.tensor([*sums.values(), *opened.tolist()], dtype=torch.float64))
        means = (totals / len(self.train_data)).tolist()
        return dict(zip(sums, means[: len(sums)], strict=True)), means[len(sums) :]

    def _step(self, batch: PairBatch, epoch: int, share: float) -> Objective:
        """One step of SGD; `share` is this worker's part of the step's pairs."""
        objective = self._objective(batch, epoch)
        if not torch.isfinite(objective.loss):
            pairs = ", ".join(record.pair_id for record in batch.records)
            raise RuntimeError(f"training diverged in epoch {epoch + 1}: the loss of pairs {pairs} is not finite")
        self.optimiser.zero_grad(set_to_none=False)
        (objective.loss * share).backward()
        gradients = torch.cat([_gradient(p).flatten() for p in self.learned.values()])
        gradients = self._sum_over_workers(gradients)
        sizes = [p.numel() for p in self.learned.values()]
        for parameter, gradient in zip(self.learned.values(), gradients.split(sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)
        self.optimiser.step()
        return objective

    def _objective(self, batch: PairBatch, epoch: int) -> Objective:
        config = self.task.config
        network, supervision = self.network, config.supervision
        num_layers = len(network.backbone)
        with torch.no_grad():
            maps = network.extract(torch.cat([batch.source, batch.target]).to(self.device))
        num_pairs = len(batch.numbers)
        negatives = _negatives(batch, supervision)
        # Noise of a negative pair: its source's number beyond all positive ones.
        numbers = [*batch.numbers, *(batch.numbers[s] + len(self.train_data) for s, _ in negatives)]
        uniform = gumbel_uniforms(numbers, num_layers, config.seed, epoch).to(self.device)
        sources = torch.tensor([*range(num_pairs), *(s for s, _ in negatives)])
        targets = torch.tensor([*range(num_pairs), *(t for _, t in negatives)]) + num_pairs
        source, target = network.embed_pair([m[sources] for m in maps], [m[targets] for m in maps])
        if supervision.kind == "weak":
            return supervise_weakly(network, source, target, num_pairs, supervision, uniform)
        if batch.keypoints is None:
            pairs = ", ".join(record.pair_id for record in batch.records if record.target_keypoints is None)
            raise InputError(f"strong supervision: pairs {pairs} have no keypoints")
        return supervise_strongly(
            network, source, target, batch.keypoints.to(self.device), supervision, uniform, self.engine
        )

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean PCK of the validation pairs, each worker doing its share."""
        self._average_statistics()
        self.network.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        for number in range(self.rank, len(self.val_data), self.world_size):
            batch = self.val_data.batch([number])
            if batch.keypoints is None:
                continue
            features = self.network.describe(torch.cat([batch.source, batch.target]).to(self.device))
            keypoints = batch.keypoints.to(self.device)
            wanted = cells_of_points(keypoints.source, keypoints.valid)
            found, _ = self.network.match(features, features, [(0, 1)], wanted, self.engine)
            moved = transfer(found, keypoints.source, keypoints.valid)
            distance = (moved.points - keypoints.target).norm(dim=2)
            right = moved.valid & (distance <= self.task.config.supervision.alpha * keypoints.threshold[:, None])
            sums += torch.tensor([right.sum().item() / keypoints.valid.sum().item(), 1.0], dtype=torch.float64)
        total, count = self._sum_over_workers(sums).tolist()
        return float(total / count)

    def _average_statistics(self) -> None:
        """Gives all workers the mean of their batch normalisation statistics, so that they validate one model."""
        averages = [b for n, b in self.network.named_buffers() if "running_" in n and not n.startswith("backbone.")]
        for buffer in averages:
            buffer.copy_(self._sum_over_workers(buffer.clone()) / self.world_size)

    def _sum_over_workers(self, values: Tensor) -> Tensor:
        if self.world_size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    # -- tracking, checkpoints --

    def _log_step(self, step: int, objective: Objective) -> None:
        if self.rank == 0 and step % 10 == 0:
            log_to_run(
                self.task.tracking_uri, self.task.run_id, {f"step/{k}": v for k, v in objective.terms.items()}, step
            )

    def _learned_state(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.network.learned_state().items()}

    def _report(self, entry: dict[str, Any]) -> None:
        if self.rank != 0:
            ray.train.report({"val_pck": entry["val_pck"]})
            return
        numbers = {k: v for k, v in entry.items() if isinstance(v, float)}
        log_to_run(self.task.tracking_uri, self.task.run_id, numbers, int(entry["epoch"]))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_network(self.network, folder / CURRENT)
            current = self._learned_state()
            self.network.load_state_dict(self.best_state, strict=False)
            save_network(self.network, folder / BEST)
            self.network.load_state_dict(current, strict=False)
            momenta = {n: self.optimiser.state[p]["momentum_buffer"] for n, p in self.learned.items()}
            safetensors.torch.save_file({n: m.contiguous() for n, m in momenta.items()}, folder / OPTIMISER)
            progress = {"history": self.history, "best_epoch": self.best_epoch, "best_pck": self.best_pck}
            (folder / PROGRESS).write_bytes(canonical_json(progress))
            ray.train.report({"val_pck": entry["val_pck"]}, checkpoint=ray.train.Checkpoint.from_directory(name))

    def _resume(self) -> None:
        """Takes up weights, momenta and history of the last checkpoint, if there is one."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as name:
            folder = Path(name)
            weights = self.task.model.weights
            self.best_state = load_network(folder / BEST, weights).learned_state()
            self.network.load_state_dict(load_network(folder / CURRENT, weights).learned_state(), strict=False)
            momenta = safetensors.torch.load_file(folder / OPTIMISER)
            for parameter_name, parameter in self.learned.items():
                self.optimiser.state[parameter]["momentum_buffer"] = momenta[parameter_name].to(self.device)
            progress = json.loads((folder / PROGRESS).read_bytes())
        self.history = progress["history"]
        self.best_epoch, self.best_pck = progress["best_epoch"], progress["best_pck"]


def _negatives(batch: PairBatch, supervision: SupervisionConfig) -> list[tuple[int, int]]:
    return negative_pairs([r.category for r in batch.records]) if supervision.kind == "weak" else []


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
