"""Chooses the engine that matches pairs, by its name or for a device."""

from __future__ import annotations

import importlib.util

import torch

from dhpf.config import ENGINES, EngineName, require_choice
from dhpf.errors import InputError
from dhpf.model.engines.compiled import CompiledEngine
from dhpf.model.engines.engine import MatchEngine
from dhpf.model.engines.row_blocks import RowBlockEngine

LOWEST_CAPABILITY = (8, 0)
"""Compute capability of the oldest NVIDIA GPUs that Triton supports."""


def choose_engine(name: EngineName = "auto", device: torch.device | str = "cpu") -> MatchEngine:
    """An engine for features on a device. It reuses its buffers, so each thread that matches needs its own.

    Raises:
        InputError: an unknown name, or an engine that does not run on the device.
    """
    device = torch.device(device)
    require_choice("engine", name, ENGINES)
    if name == "compiled" and device.type != "cpu":
        raise InputError(f"engine: 'compiled' runs on a CPU, not on {device}; take 'auto' or 'torch'")
    if name == "triton" or (name == "auto" and device.type == "cuda"):
        obstacle = _obstacle_to_triton(device)
        if obstacle is None:
            from dhpf.model.engines.triton_engine import (
                TritonEngine,
            )  # Triton is not installed everywhere, and only GPUs need it

            return TritonEngine()
        if name == "triton":
            raise InputError(f"engine: 'triton' {obstacle}; take 'auto' or 'torch'")
    if name == "torch" or device.type != "cpu":
        return RowBlockEngine(device)
    return CompiledEngine()


def _obstacle_to_triton(device: torch.device) -> str | None:
    """Why the engine for GPUs cannot run on a device, if so."""
    if device.type != "cuda":
        return f"runs on a CUDA GPU, not on {device}"
    if importlib.util.find_spec("triton") is None:
        return "needs the package triton, which is not installed here"
    if not torch.cuda.is_available():
        return "needs a CUDA GPU, and torch finds none here"
    capability = torch.cuda.get_device_capability(device)
    if capability < LOWEST_CAPABILITY:
        lowest = "{}.{}".format(*LOWEST_CAPABILITY)
        return f"needs compute capability {lowest}, and {device} has {capability[0]}.{capability[1]}"
    return None
