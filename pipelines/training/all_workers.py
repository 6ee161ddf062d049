"""Differentiable sums over all processes of a distributed training."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dhpf.model.global_batch import ALONE, Workers


class _Sum(torch.autograd.Function):
    """A sum over processes. Every process's result depends on every process's values, so gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def _add_up(values: Tensor) -> Tensor:
    result: Tensor = _Sum.apply(values)
    return result


def all_workers() -> Workers:
    """The processes of the default process group; this one alone where there is no group."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return ALONE
    return Workers(dist.get_world_size(), _add_up)
