"""The batch of a training step, whose pairs may be spread over several processes.

Batch normalisation and the loss are defined on the whole batch. Each process holds some of its pairs; of the others it
needs sums only, which `Workers.add_up` computes with gradient. So any number of processes learns the same.
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
    """Mean and (biased) variance of the channels of several layers over the whole batch, with gradient.

    The layers' channels stand one layer after the other, so that a few operations serve all of them: on a GPU
    starting such an operation takes longer than computing it.

    Attributes:
        mean, variance: (C,).
        num_values: (C,) how many values of each channel they are computed from.
    """

    mean: Tensor
    variance: Tensor
    num_values: Tensor

    def first(self, channels: int) -> Moments:
        """The moments of the first channels alone."""
        return Moments(self.mean[:channels], self.variance[:channels], self.num_values[:channels])


def global_moments(maps: Sequence[Tensor], counts: Tensor, workers: Workers) -> Moments:
    """Moments of several layers' maps over the images of all processes, in one exchange.

    Sums over images are taken in double precision: so the result in single precision does not
    depend on how images are spread over processes.

    Args:
        maps: for each layer (B, C_l, height_l, width_l).
        counts: (B,) how often each image counts.

    Raises:
        InputError: a layer has one value in all.
    """
    device, dtype = maps[0].device, maps[0].dtype
    weights = counts.to(device=device, dtype=torch.float64)
    layers = [_ImageMoments.apply(layer) for layer in maps]
    mean, variance = (torch.cat(of_layers, dim=1).double() for of_layers in zip(*layers, strict=True))
    totals = workers.add_up(torch.cat([weights @ mean, weights @ (variance + mean.square()), weights.sum()[None]]))
    num_images = totals[-1].item()
    sizes = [m[0, 0].numel() for m in maps]
    if num_images * min(sizes) < 2:
        raise InputError("train.batch_size: one pair cannot be normalised; use at least 2 pairs per step")
    mean, square = (totals[:-1] / num_images).chunk(2)
    num_values = torch.cat(
        [torch.full((m.shape[1],), num_images * size) for m, size in zip(maps, sizes, strict=True)]
    ).to(device, dtype)
    return Moments(mean.to(dtype), (square - mean.square()).clamp(min=0).to(dtype), num_values)


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


def normalise(maps: Sequence[Tensor], moments: Moments, norms: Sequence[nn.BatchNorm2d]) -> list[Tensor]:
    """Rectified batch normalisation of several layers' (B, C_l, height_l, width_l) maps with given moments.

    Args:
        norms: hold the parameters of all channels together, one after the other.
    """
    weight, bias = (torch.cat([getattr(norm, name) for norm in norms]) for name in ("weight", "bias"))
    scale = weight * (moments.variance + norms[0].eps).rsqrt()
    shift = bias - moments.mean * scale
    widths = [m.shape[1] for m in maps]
    layers = zip(maps, torch.split(scale, widths), torch.split(shift, widths), strict=True)
    return [torch.addcmul(b[:, None, None], m, a[:, None, None]).relu_() for m, a, b in layers]


@torch.no_grad()
def follow(norms: Sequence[nn.BatchNorm2d], moments: Moments) -> None:
    """Moves layers' running statistics towards a batch's, as batch normalisation does in training."""
    widths, momentum = [norm.num_features for norm in norms], norms[0].momentum
    assert momentum is not None
    unbiased = moments.variance * (moments.num_values / (moments.num_values - 1))
    for name, values in (("running_mean", moments.mean), ("running_var", unbiased)):
        torch._foreach_lerp_([getattr(norm, name) for norm in norms], list(torch.split(values, widths)), momentum)
    for norm in norms:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
