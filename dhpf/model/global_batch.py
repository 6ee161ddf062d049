"""The batch of a training step, whose pairs may be spread over several processes.

Batch normalisation and the loss are defined on the whole batch. Each process holds some of its pairs; what has to be
known of the others is a sum, which `Workers.add_up` takes with gradient. So any number of processes learns the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dhpf.errors import InputError


@dataclass(frozen=True)
class Workers:
    """The processes of a training step.

    Attributes:
        count: how many there are.
        add_up: a tensor -> its sum over all processes. Every process calls it equally often, with equal shapes; a
            gradient that comes back is summed over the processes too.
    """

    count: int
    add_up: Callable[[Tensor], Tensor]


ALONE = Workers(1, lambda values: values)


@dataclass(frozen=True)
class TrainingPairs:
    """This process's pairs of a training step: the positive ones first, then the negative ones of weak supervision.

    Attributes:
        sources, targets: (P,) numbers among this process's source images and among its target images.
        num_positive: how many of the P are positive.
        weights: (P,) 1; 0 for a pair that another process holds too, so that this one has something to do.
    """

    sources: Tensor
    targets: Tensor
    num_positive: int
    weights: Tensor

    @classmethod
    def aligned(cls, num_pairs: int) -> TrainingPairs:
        """Positive pairs, of which each has a source and a target image of its own."""
        every = torch.arange(num_pairs)
        return cls(every, every, num_pairs, torch.ones(num_pairs))

    def source_counts(self, num_images: int) -> Tensor:
        """(num_images,) how often each source image stands in a pair."""
        return torch.zeros(num_images).index_add(0, self.sources, self.weights)

    def target_counts(self, num_images: int) -> Tensor:
        """(num_images,) how often each target image stands in a pair."""
        return torch.zeros(num_images).index_add(0, self.targets, self.weights)


@dataclass(frozen=True)
class Moments:
    """Mean and (biased) variance of a layer's channels over the whole batch, with gradient.

    Attributes:
        mean, variance: (C,).
        num_values: how many values of each channel they are of.
    """

    mean: Tensor
    variance: Tensor
    num_values: float


def global_moments(maps: Sequence[Tensor], counts: Tensor, workers: Workers) -> list[Moments]:
    """Moments of several layers' maps over the images of all processes, in one exchange.

    Sums over images are taken in double precision: how images are spread over processes then changes no digit that
    single precision keeps.

    Args:
        maps: for each layer (B, C_l, height_l, width_l).
        counts: (B,) how often each image counts.

    Raises:
        InputError: a layer has one value in all.
    """
    weights = counts.to(device=maps[0].device, dtype=torch.float64)
    sums = []
    for layer in maps:
        mean, variance = (m.double() for m in _ImageMoments.apply(layer))
        sums += [weights @ mean, weights @ (variance + mean.square())]
    totals = workers.add_up(torch.cat([*sums, weights.sum()[None]]))
    num_images = totals[-1].item()
    if num_images * min(m[0, 0].numel() for m in maps) < 2:
        raise InputError("train.batch_size: one pair cannot be normalised; use at least 2 pairs per step")
    pieces = torch.split(totals[:-1] / num_images, [len(s) for s in sums])
    return [
        Moments(mean.to(m.dtype), (square - mean.square()).clamp(min=0).to(m.dtype), num_images * m[0, 0].numel())
        for m, mean, square in zip(maps, pieces[::2], pieces[1::2], strict=True)
    ]


class _ImageMoments(torch.autograd.Function):
    """(B, C) mean and biased variance of each channel of (B, C, height, width) maps; backward is one pass."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
        mean = maps.mean((2, 3))
        variance = (maps - mean[:, :, None, None]).square_().mean((2, 3))
        ctx.save_for_backward(maps, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> Tensor:
        maps, mean = ctx.saved_tensors
        size = maps.shape[2] * maps.shape[3]
        slope = 2 * of_variance / size
        offset = of_mean / size - slope * mean
        return torch.addcmul(offset[:, :, None, None], maps, slope[:, :, None, None])


def normalise(maps: Tensor, moments: Moments, norm: nn.BatchNorm2d) -> Tensor:
    """Rectified batch normalisation of (B, C, height, width) maps with given moments."""
    scale = norm.weight * (moments.variance + norm.eps).rsqrt()
    shift = norm.bias - moments.mean * scale
    return torch.addcmul(shift[:, None, None], maps, scale[:, None, None]).relu_()


@torch.no_grad()
def follow(norm: nn.BatchNorm2d, moments: Moments) -> None:
    """Moves a layer's running statistics towards a batch's, as batch normalisation does in training."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    unbiased = moments.variance * (moments.num_values / (moments.num_values - 1))
    norm.running_mean.lerp_(moments.mean, norm.momentum)
    norm.running_var.lerp_(unbiased, norm.momentum)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1
