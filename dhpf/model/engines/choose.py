"""Which engine matches pairs here: chosen by the device, or named."""

from __future__ import annotations

import torch

from dhpf.config import ENGINES, EngineName, require_choice
from dhpf.errors import InputError
from dhpf.model.engines.compiled import CompiledEngine
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.engines.row_blocks import RowBlockEngine


def choose_engine(name: EngineName = "auto", device: torch.device | str = "cpu") -> MatchEngine:
    """An engine for features on a device. It reuses its buffers: one for each thread that matches.

    Raises:
        InputError: an unknown name, or an engine that does not run on the device.
    """
    device = torch.device(device)
    require_choice("engine", name, ENGINES)
    if name == "compiled" and device.type != "cpu":
        raise InputError(f"engine: 'compiled' runs on a CPU, not on {device}; take 'auto' or 'torch'")
    if name == "torch" or device.type != "cpu":
        return RowBlockEngine(device)
    return CompiledEngine()
