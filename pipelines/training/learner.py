"""One process of data parallel training, without Ray: steps of SGD on the global batch, and validation.

The result does not depend on the number of processes: sums over the batch are taken over all of them, noise and order
are functions of seed, epoch and pair, and every process ends a step with equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.model.consistent import consistent_matches
from dhpf.model.engines.choose import choose_engine
from dhpf.model.features import start_near_identity
from dhpf.model.global_batch import Workers
from dhpf.model.training_step import embed_step, match_own_maps
from dhpf.model.transfer import cells_of_points, transfer
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.training.frozen_maps import FrozenMaps
from dhpf.pipelines.training.pair_dataset import PairDataset, StepShare, gumbel_uniforms, share_of_step
from dhpf.supervision import SUPERVISIONS, KeypointBatch, Objective, Step

NUM_IMAGES_TO_START = 8
"""Images whose features set the scale of projections that start near the identity."""

NUM_MATCHES = 64
"""Matches of a pair without keypoints that contrastive supervision learns from."""


@dataclass(frozen=True)
class LoadedShare:
    """A worker's share of a step, with all that computing it needs.

    Attributes:
        step: running numbers of all pairs of the step.
        share: which pairs of the step this worker takes.
        source, target: the backbone's maps of the source and of the target images, by layer.
        keypoints: of the share's positive pairs; None where the supervision needs none.
        uniform: (P, L, 2) uniform draws for the gates' noise.
    """

    step: tuple[int, ...]
    share: StepShare
    source: list[Tensor]
    target: list[Tensor]
    keypoints: KeypointBatch | None
    uniform: Tensor


@dataclass(frozen=True)
class CheckedPair:
    """A validation pair and the network's predictions for it, in the frame.

    Attributes:
        source_points, true_points, points: (K, 2) keypoints of the source, of the target, and as predicted.
        valid, correct: (K,) whether a keypoint has a prediction, and whether it is correct.
    """

    number: int
    source_points: NDArray[np.float32]
    true_points: NDArray[np.float32]
    points: NDArray[np.float32]
    valid: NDArray[np.bool_]
    correct: NDArray[np.bool_]

    @property
    def pck(self) -> float:
        """Share of the keypoints whose prediction is correct."""
        return float(self.correct.mean())


class Learner:
    """Trains a network in one of several processes that share each step.

    Args:
        maps_folder: where the frozen backbone's maps are kept.
        workers, rank: all processes of the training, and which of them this is.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainConfig,
        train_data: PairDataset,
        val_data: PairDataset,
        maps_folder: Path,
        workers: Workers,
        rank: int,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.workers, self.rank = config, workers, rank
        self.device = torch.device("cuda" if config.resources.gpus else "cpu")
        self.network = build_network(model).to(self.device)
        self.learned = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.SGD(self.learned.values(), lr=config.learning_rate, momentum=config.momentum)
        self.supervision = SUPERVISIONS[config.supervision.kind]
        self.train_data, self.val_data = train_data, val_data
        budget = config.kept_maps_mb * 1_000_000 // workers.count
        self.maps = FrozenMaps(self.network, maps_folder, budget, config.precision)
        self._engine = choose_engine("auto", self.device)
        self._own_matches: dict[int, KeypointBatch] = {}
        if config.projection_start == "near-identity":
            self._start_near_identity()
        if not isinstance(config.gates_start, str):
            self.network.selector.start_open(config.gates_start)

    def _start_near_identity(self) -> None:
        """Every worker measures the same images, so that all start with the same projections."""
        numbers = range(0, len(self.train_data), max(1, len(self.train_data) // NUM_IMAGES_TO_START))
        start_near_identity(self.network.projections, self.maps.of([self.train_data.source(n) for n in numbers]))

    # -- learning --

    def load(self, step: Sequence[int], epoch: int) -> LoadedShare:
        """Reads this worker's share of a step; may run in another thread, one step ahead."""
        data, seed = self.train_data, self.config.seed
        categories = [data.record(n).category for n in step] if self.supervision.has_negatives else None
        share = share_of_step(step, categories, len(data), self.rank, self.workers.count)
        source = self.maps.of([data.source(n) for n in share.sources])
        target = self.maps.of([data.target(n) for n in share.targets])
        keypoints = self._points(share.sources, source, target)
        uniform = gumbel_uniforms(share.noise, len(self.network.layers), seed, epoch)
        return LoadedShare(tuple(step), share, source, target, keypoints, uniform)

    def _points(self, numbers: Sequence[int], source: list[Tensor], target: list[Tensor]) -> KeypointBatch | None:
        """The points of these pairs that the kind of supervision learns from; None where it needs none."""
        match self.supervision.points:
            case "keypoints":
                keypoints = self.train_data.keypoints(numbers)
                if keypoints is None:
                    ids = ", ".join(self.train_data.record(n).pair_id for n in numbers)
                    kind = self.config.supervision.kind
                    raise InputError(f"{kind} supervision: pairs {ids} have no keypoints")
                return keypoints
            case "keypoints or matches":
                return self._keypoints_or_matches(numbers, source, target)
            case "none":
                return None

    def _keypoints_or_matches(
        self, numbers: Sequence[int], source: list[Tensor], target: list[Tensor]
    ) -> KeypointBatch:
        """The keypoints of pairs that have some; for all other pairs, consistent matches of the backbone's own maps.

        The maps are those of the layers whose gates start open, if `gates_start` names some, else of all layers that
        the model keeps. The matches of a pair are found once, since they do not depend on what is learned.
        """
        batches = []
        for place, number in enumerate(numbers):
            of_pair = self.train_data.keypoints([number]) or self._own_matches.get(number)
            if of_pair is None:
                start = self.config.gates_start
                layers = range(len(source)) if isinstance(start, str) else start
                own_source, own_target = ([m[place : place + 1] for m in side] for side in (source, target))
                found = match_own_maps(self.network, own_source, own_target, layers, self._engine)
                matched_source, matched_target, valid = (t.cpu() for t in consistent_matches(found, NUM_MATCHES))
                of_pair = KeypointBatch(matched_source, matched_target, valid, torch.zeros(1))
                self._own_matches[number] = of_pair
            batches.append(of_pair)
        return KeypointBatch.concatenate(batches)

    def step(self, loaded: LoadedShare) -> Objective:
        """One step of SGD, after which all workers have the same weights.

        Raises:
            RuntimeError: the loss is not finite; the message names the step's pairs.
        """
        self.network.train()
        objective = self._objective(loaded)
        if not np.isfinite(objective.terms["loss"]):
            pairs = ", ".join(self.train_data.record(n).pair_id for n in loaded.step)
            raise RuntimeError(f"training diverged: the loss of the step with pairs {pairs} is not finite")
        self.optimiser.zero_grad(set_to_none=False)
        torch.autograd.backward(objective.loss)
        gradients = torch.cat([_gradient(p).flatten() for p in self.learned.values()])
        gradients = self.workers.add_up(gradients)
        sizes = [p.numel() for p in self.learned.values()]
        for parameter, gradient in zip(self.learned.values(), torch.split(gradients, sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)
        self.optimiser.step()
        return objective

    def _objective(self, loaded: LoadedShare) -> Objective:
        pairs = loaded.share.pairs
        source, target = embed_step(self.network, loaded.source, loaded.target, pairs, self.workers)
        step = Step(
            network=self.network,
            config=self.config.supervision,
            source=source,
            target=target,
            pairs=pairs,
            uniform=loaded.uniform.to(self.device),
            engine=self._engine,
            keypoints=None if loaded.keypoints is None else loaded.keypoints.to(self.device),
            workers=self.workers,
        )
        return self.supervision.objective(step)

    # -- validation --

    @torch.no_grad()
    def validate(self) -> list[CheckedPair]:
        """Predicts this worker's share of the validation pairs that have keypoints."""
        self.network.eval()
        numbers = range(self.rank, len(self.val_data), self.workers.count)
        return [checked for number in numbers if (checked := self._check(number)) is not None]

    def _check(self, number: int) -> CheckedPair | None:
        data, network = self.val_data, self.network
        keypoints = data.keypoints([number])
        if keypoints is None:
            return None
        keypoints = keypoints.to(self.device)
        features = network.embed(self.maps.of([data.source(number), data.target(number)]))
        wanted = cells_of_points(keypoints.source, keypoints.valid)
        found, _ = network.match(features, features, [(0, 1)], wanted, self._engine)
        moved = transfer(found, keypoints.source, keypoints.valid)
        distance = (moved.points - keypoints.target).norm(dim=2)
        correct = moved.valid & (distance <= self.config.supervision.alpha * keypoints.threshold[:, None])
        parts = (keypoints.source, keypoints.target, moved.points, moved.valid, correct)
        return CheckedPair(number, *(part[0].cpu().numpy() for part in parts))

    def mean_pck(self, checked: Sequence[CheckedPair]) -> float:
        """Mean PCK over the pairs that all workers checked together."""
        total = torch.tensor([sum(c.pck for c in checked), len(checked)], dtype=torch.float64, device=self.device)
        of_all, count = self.workers.add_up(total).tolist()
        return float(of_all / count)

    # -- state --

    def state(self) -> dict[str, Tensor]:
        """A copy of all that is learned, running statistics included."""
        return {k: v.detach().clone() for k, v in self.network.learned_state().items()}

    def momenta(self) -> dict[str, Tensor]:
        """The optimiser's momentum, by the parameter's name."""
        return {n: self.optimiser.state[p]["momentum_buffer"] for n, p in self.learned.items()}

    def restore(self, state: dict[str, Tensor], momenta: dict[str, Tensor]) -> None:
        """Goes on from what `state` and `momenta` gave."""
        self.network.load_state_dict(state, strict=False)
        for name, parameter in self.learned.items():
            self.optimiser.state[parameter]["momentum_buffer"] = momenta[name].to(self.device)


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
