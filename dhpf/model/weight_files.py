"""Files with a network's weights, read without running any code in them."""

from __future__ import annotations

import pickle
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dhpf.config import located_weights
from dhpf.errors import InputError

StateDict = dict[str, Tensor]


def read_state_dict(path: str | Path) -> StateDict:
    """Reads a state dict from a safetensors or torch file.

    Args:
        path: of the file; "package:NAME/PATH" is a file that an installed Python package brings.

    Raises:
        InputError: missing, damaged, or a pickle of anything but tensors.
    """
    file = located_weights(path)
    if file.suffix == ".safetensors":
        try:
            tensors: StateDict = safetensors.torch.load_file(file)
            return tensors
        except SafetensorError as error:
            raise InputError(f"weights {path}: not a safetensors file ({error})") from error
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"weights {path}: a pickle that holds more than tensors, which is never loaded") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"weights {path}: not a torch or safetensors file of weights") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"weights {path}: holds no state dict (names with tensors)")
    return state


def load_strictly(network: nn.Module, state: StateDict, backbone: str, origin: str) -> None:
    """Loads weights into a network that has only what it needs; entries that it does not have are left out.

    Raises:
        InputError: an entry is missing or of another shape.
    """
    expected = network.state_dict()
    for key, value in expected.items():
        found = state.get(key)
        if found is None and key.endswith("num_batches_tracked"):
            continue
        if found is None or found.shape != value.shape:
            what = "is missing" if found is None else f"has the shape {tuple(found.shape)}, not {tuple(value.shape)}"
            raise InputError(f"weights {origin}: not those of backbone {backbone!r}; entry {key!r} {what}")
    network.load_state_dict({k: v for k, v in state.items() if k in expected}, strict=False)
