"""Cost of a training step, ours and the published one, in one process: part of `make bench`."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.published import PublishedMatcher
from benchmarks.published_training import PublishedTraining
from dhpf.config import SupervisionConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.model.global_batch import TrainingPairs
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.training_step import embed_step
from dhpf.supervision import KeypointBatch, Step, supervise_strongly, supervise_weakly

BATCH_SIZE = 4
NUM_KEYPOINTS = 10


class TrainingSubject:
    """A network in training mode, random images, and our and the published way to compute a step's gradients.

    Args:
        network: the steps are computed on its device.
    """

    def __init__(self, network: HyperpixelNetwork) -> None:
        self.network = network.train()
        device = network.backbone.mean.device
        self.engine = choose_engine("auto", device)
        generator = torch.Generator().manual_seed(1)
        shape = (2, BATCH_SIZE, 3, 240, 240)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.source, self.target = images.to(device)
        source, target = 240 * torch.rand(2, BATCH_SIZE, NUM_KEYPOINTS, 2, generator=generator)
        valid = torch.ones(BATCH_SIZE, NUM_KEYPOINTS, dtype=torch.bool)
        self.keypoints = KeypointBatch(source, target, valid, torch.full((BATCH_SIZE,), 240.0)).to(device)
        self.uniform = torch.rand(2 * BATCH_SIZE, len(network.layers), 2, generator=generator).to(device)
        self.published = PublishedTraining(PublishedMatcher.of(network))
        self.maps = self.extract()

    @torch.no_grad()
    def extract(self) -> tuple[list[Tensor], list[Tensor]]:
        """The frozen backbone's maps of source and target images, one image at a time as training does on a CPU."""
        source, target = (self._extract(images) for images in (self.source, self.target))
        return source, target

    def _extract(self, images: Tensor) -> list[Tensor]:
        batch: list[Tensor] = []
        for number, image in enumerate(torch.split(images, 1)):
            maps = self.network.extract(image)
            batch = batch or [m.new_empty((len(images), *m.permute(0, 2, 3, 1).shape[1:])) for m in maps]
            for layer, m in zip(batch, maps, strict=True):
                layer[number] = m[0].permute(1, 2, 0)
        return [layer.permute(0, 3, 1, 2) for layer in batch]

    def strong(self, maps: tuple[list[Tensor], list[Tensor]] | None = None) -> Tensor:
        """Our strong step.

        Args:
            maps: the frozen backbone's maps, where they are kept; None computes them.
        """
        pairs = TrainingPairs.aligned(BATCH_SIZE)
        source, target = embed_step(self.network, *(maps or self.extract()), pairs)
        uniform = self.uniform[:BATCH_SIZE]
        step = Step(
            self.network, SupervisionConfig(), source, target, pairs, uniform, self.engine, keypoints=self.keypoints
        )
        return self._gradients(supervise_strongly(step).loss)

    def published_strong(self) -> Tensor:
        """The published strong step."""
        uniform = self.uniform[:BATCH_SIZE]
        return self._gradients(self.published.strong_loss(self.source, self.target, self.keypoints, uniform))

    def weak(self) -> Tensor:
        """Our weak step. Every pair has its own category, so that there are as many negative pairs as positive ones."""
        every = torch.arange(BATCH_SIZE)
        targets = torch.cat([every, every.roll(-1)])
        pairs = TrainingPairs(torch.cat([every, every]), targets, BATCH_SIZE, torch.ones(2 * BATCH_SIZE))
        source, target = embed_step(self.network, *self.extract(), pairs)
        config = SupervisionConfig(kind="weak")
        step = Step(self.network, config, source, target, pairs, self.uniform, self.engine)
        return self._gradients(supervise_weakly(step).loss)

    def published_weak(self) -> Tensor:
        """The published weak step."""
        return self._gradients(self.published.weak_loss(self.source, self.target, self.uniform))

    def _gradients(self, loss: Tensor) -> Tensor:
        self.network.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        return loss.detach()
