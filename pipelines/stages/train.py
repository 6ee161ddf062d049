"""The train stage: Ray Train workers learn gates and projections; the epoch with the best validation PCK is kept.

A training that was killed goes on from its last checkpoint, with the same or another number of workers: steps, their
pairs and their noise do not depend on that number.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchTrainer

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.manifest import Damaged, canonical_json
from dhpf.pipelines.cluster_metrics import Work, count_work, set_blocks_left, set_gpu_memory
from dhpf.pipelines.config import TrainConfig, deciding_settings
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.tracking.run_log import RunLog
from dhpf.pipelines.training.all_workers import all_workers
from dhpf.pipelines.training.checkpoints import KEPT, RAY_RUN, make_ready, newest_whole, on_disk
from dhpf.pipelines.training.freed_memory import return_freed_memory
from dhpf.pipelines.training.frozen_maps import maps_folder
from dhpf.pipelines.training.learner import CheckedPair, Learner
from dhpf.pipelines.training.node_interface import NodeInterfaceTorchConfig
from dhpf.pipelines.training.pair_dataset import PairDataset, epoch_steps
from dhpf.pipelines.training.state import BEST, PROGRESS, TrainingState
from dhpf.pipelines.worker_reports import shown_progress
from dhpf.storage import Location
from dhpf.supervision import SUPERVISIONS, Objective

LOGGED_EVERY = 10
"""Steps between two entries of the loss in MLflow."""


@dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    Attributes:
        checkpoint: location of the best epoch's checkpoint.
        history: one entry per epoch: its number, loss terms, val_pck, seconds, and layer selection rates.
        best_epoch: counted from 1.
    """

    checkpoint: Location
    history: list[dict[str, Any]]
    best_epoch: int


@dataclass(frozen=True)
class WorkerTask:
    """All that a training worker needs to build its model and data."""

    model: ModelConfig
    config: TrainConfig
    train: ShardSet
    val: ShardSet
    folder: Location
    """Of the stage."""
    log: RunLog
    board: Any
    """A ProgressBoard."""
    maps: str
    """Names the folder on each worker's machine that keeps the frozen backbone's maps."""


def train(
    model: ModelConfig,
    config: TrainConfig,
    train_set: ShardSet,
    val_set: ShardSet,
    folder: Location,
    log: RunLog,
) -> TrainedModel:
    """Trains, or goes on where an earlier run of the same plan stopped; a complete training is left as it is.

    Args:
        folder: of the stage.
        log: the run that the first worker logs to.

    Raises:
        InputError: the model has nothing to learn, settings contradict each other, or a shard set has too few pairs or
            lacks keypoints that training needs.
    """
    _check(model, config, train_set, val_set)
    started = time.time()
    output = StageOutput(folder)
    plan = {
        **planned_settings(model, config),
        "train": train_set.digest,
        "val": val_set.digest,
        "tasks": ["model"],
    }
    output.plan(plan)
    manifest = output.manifest()
    if manifest is None:
        if "model" not in output.committed():
            digest = hashlib.sha256(canonical_json(plan)).hexdigest()[:16]
            with shown_progress("pair") as board:
                files = _fit(WorkerTask(model, config, train_set, val_set, folder, log, board, digest))
            progress = json.loads(files[PROGRESS])
            best = {"best_epoch": progress["best_epoch"], "best_pck": progress["best_pck"]}
            output.note(output.commit("model", files, best))
        record = {"stage": "train", "num_pairs": train_set.num_pairs, "code_version": code_version()}
        manifest = output.finish(record | {"seconds": round(time.time() - started, 3)})
    progress = json.loads(output.read(manifest.commits[0], PROGRESS))
    return TrainedModel(trained_checkpoint(folder), progress["history"], progress["best_epoch"])


def planned_settings(model: ModelConfig, config: TrainConfig) -> dict[str, Any]:
    """The part of a training's plan that is known before its pairs are read."""
    return {"stage": "train", "model": model.settings(), "config": deciding_settings(config)}


def trained_checkpoint(folder: Location) -> Location:
    """Where the best epoch's checkpoint of the training in this folder lies.

    Raises:
        InputError: there is no complete training, or the checkpoint is damaged.
    """
    output = StageOutput(folder)
    manifest = output.manifest()
    if manifest is None:
        raise InputError(f"model 'trained': no complete training in {folder}; run the train stage first")
    commit = manifest.commits[0]
    output.read(commit, BEST)  # checks its digest
    return output.location(commit, BEST)


def _check(model: ModelConfig, config: TrainConfig, train_set: ShardSet, val_set: ShardSet) -> None:
    if not model.learns:
        raise InputError(
            f"model.selection: {model.selection!r} has nothing to learn; train needs 'dynamic', or 'fixed' with "
            "model.projection 'residual'"
        )
    if not model.has_gates and config.gates_start != "random":
        raise InputError(
            f"train.gates_start: {config.gates_start!r} with fixed layers, which have no gates; leave it out"
        )
    if model.used_projection != "learned" and config.projection_start != "random":
        raise InputError(
            f"train.projection_start: {config.projection_start!r} with model.projection {model.projection!r}, which "
            "has a start of its own; leave it out"
        )
    for shards in (train_set, val_set):
        if not shards.num_pairs:
            raise InputError(f"shard set {shards.name}: has no usable pair to train on")
    if train_set.num_pairs < 2:
        raise InputError(f"shard set {train_set.name}: one pair cannot be normalised; training needs at least 2")
    supervision = SUPERVISIONS[config.supervision.kind]
    needing = [train_set, val_set] if supervision.points == "keypoints" else [val_set]
    for shards in needing:
        if any(pair.target_keypoints is None for _, shard in shards.shards for pair in shard.pairs):
            raise InputError(f"shard set {shards.name}: its pairs have no keypoints, which training needs there")


def _number_of_workers(config: TrainConfig) -> int | tuple[int, int]:
    return config.num_workers if config.min_workers is None else (config.min_workers, config.num_workers)


def _fit(task: WorkerTask) -> dict[str, bytes]:
    config, folder = task.config, task.folder
    make_ready(folder)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        # NCCL does not work between processes that share a GPU.
        torch_config=NodeInterfaceTorchConfig(backend="nccl" if config.resources.gpus >= 1 else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=_number_of_workers(config),  # type: ignore[arg-type]  # typed as an older class of that name
            use_gpu=config.resources.gpus > 0,
            resources_per_worker={"CPU": config.resources.cpus}
            | ({"GPU": config.resources.gpus} if config.resources.gpus else {}),
            # Processors are quicker the fewer workers share a machine's memory, GPUs the closer they are together.
            placement_strategy="PACK" if config.resources.gpus else "SPREAD",
        ),
        run_config=ray.train.RunConfig(
            name=RAY_RUN,
            storage_path=str(folder),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEPT),
        ),
    )
    trainer.fit()
    checkpoint = newest_whole(folder)
    if checkpoint is None:
        raise RuntimeError(f"training in {folder} ended without a checkpoint")
    files = {name: (checkpoint / name).read() for name in (BEST, PROGRESS)}
    num_epochs = len(json.loads(files[PROGRESS])["history"])
    if num_epochs < config.epochs:
        raise Damaged(
            f"training in {folder}: its last checkpoint was damaged since it was written; the same command goes on "
            f"from epoch {num_epochs}"
        )
    return files


# -- a worker ----------------------------------------------------------------------------------------------------


def train_worker(settings: Mapping[str, Any]) -> None:
    """Runs in every worker: goes on from the last checkpoint, step by step, and validates after each epoch."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    task: WorkerTask = settings["task"]
    return_freed_memory()
    torch.set_num_threads(max(1, int(task.config.resources.cpus)))
    train_data, val_data = PairDataset(task.train), PairDataset(task.val)
    rank = ray.train.get_context().get_world_rank()
    with maps_folder(task.maps) as maps:
        learner = Learner(task.model, task.config, train_data, val_data, maps, all_workers(), rank)
        Worker(task, learner).run()


class Worker:
    """Takes a learner through the epochs; the first worker also logs and writes checkpoints."""

    def __init__(self, task: WorkerTask, learner: Learner) -> None:
        self.task, self.config, self.learner = task, task.config, learner
        self.is_first = learner.rank == 0
        self.state = self._resumed() or TrainingState.start(learner)
        self._counted = (0, 0, 0)

    def run(self) -> None:
        for epoch in range(self.state.epoch, self.config.epochs):
            self._train_epoch(epoch)
            self._finish_epoch(epoch)

    def _resumed(self) -> TrainingState | None:
        checkpoint = newest_whole(self.task.folder)
        if checkpoint is None:
            return None
        with on_disk(checkpoint) as folder:
            return TrainingState.read(folder, self.learner)

    def _train_epoch(self, epoch: int) -> None:
        config, learner, state = self.config, self.learner, self.state
        steps = epoch_steps(len(learner.train_data), config.batch_size, config.seed, epoch)
        remaining = range(state.step, len(steps))
        started = time.monotonic()
        with ThreadPoolExecutor(1) as loader:
            loading = [loader.submit(learner.load, steps[n], epoch) for n in remaining[:1]]
            for number in remaining:
                loaded = loading.pop().result()
                if number + 1 < len(steps):  # load the next step while this one is learned
                    loading.append(loader.submit(learner.load, steps[number + 1], epoch))
                objective = learner.step(loaded)
                seconds, started = time.monotonic() - started, time.monotonic()
                state.add(objective, steps[number], seconds)
                self._count_step(len(steps[number]), seconds, len(steps) - number - 1)
                self._log_step(epoch, number, len(steps), objective, steps[number])
                if (number + 1) % config.checkpoint_steps == 0 and number + 1 < len(steps):
                    self._report({})

    def _count_step(self, num_pairs: int, seconds: float, num_left: int) -> None:
        """Adds to the metrics the images of this worker; and, in the first one, the step and its pairs for all."""
        counts = self.learner.maps.counts
        described, reused, num_bytes = (now - before for now, before in zip(counts, self._counted, strict=True))
        self._counted = counts
        count_work("train", Work(0, described, reused, num_bytes))
        if self.is_first:
            count_work("train", Work(num_pairs, seconds=seconds))
            set_blocks_left("train", num_left)
        set_gpu_memory("train", self.learner.device)

    def _finish_epoch(self, epoch: int) -> None:
        started = time.monotonic()
        checked = self.learner.validate()
        pck = self.learner.mean_pck(checked)
        self.state.seconds += time.monotonic() - started
        entry = self.state.end_epoch(pck, self.learner)
        if self.is_first:
            self.task.log.log_metrics(
                {k: v for k, v in entry.items() if k not in ("epoch", "selection_rates")}, epoch + 1
            )
            rates = {f"selection_rate/layer-{n:02d}": rate for n, rate in enumerate(entry["selection_rates"])}
            self.task.log.log_metrics(rates, epoch + 1)
            self._log_backbone_work(epoch)
            self._log_sample(epoch, checked)
        self._report({"val_pck": pck})

    # -- tracking, checkpoints; drawing is imported here, because only the first worker uses it --

    def _log_step(self, epoch: int, number: int, num_steps: int, objective: Objective, step: list[int]) -> None:
        if not self.is_first:
            return
        title = f"train epoch {epoch + 1}/{self.config.epochs}, loss {objective.terms['loss']:.3f}"
        done = min(number * self.config.batch_size + len(step), len(self.learner.train_data))
        self.task.board.write.remote(title, done, len(self.learner.train_data))
        if number % LOGGED_EVERY == 0:
            self.task.log.log_metrics({f"step/{k}": v for k, v in objective.terms.items()}, epoch * num_steps + number)
        if epoch == number == 0:
            from dhpf.pipelines.training.pictures import step_picture

            picture = step_picture(self.learner.train_data, step)
            self.task.log.log_picture(picture, "pictures/first-step.png")

    def _log_backbone_work(self, epoch: int) -> None:
        """Logs what the first worker has saved so far by keeping the frozen backbone's maps."""
        maps = self.learner.maps
        per_image = maps.seconds_computing / max(maps.num_computed, 1)
        work = {"computed": maps.num_computed, "read": maps.num_read, "saved_seconds": maps.num_read * per_image}
        self.task.log.log_metrics({f"backbone/{name}": value for name, value in work.items()}, epoch + 1)

    def _log_sample(self, epoch: int, checked: list[CheckedPair]) -> None:
        if checked:
            from dhpf.pipelines.training.pictures import checked_picture

            picture = checked_picture(self.learner.val_data, checked, f"Validation after epoch {epoch + 1}")
            self.task.log.log_picture(picture, f"pictures/validation/epoch-{epoch + 1:03d}.png")

    def _report(self, metrics: dict[str, float]) -> None:
        """Reports to Ray Train, which every worker must do equally often; the first one hands over the checkpoint."""
        if not self.is_first:
            ray.train.report(metrics)
            return
        with self.state.written(self.learner) as folder:
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
