"""Files with a network's weights, read without running any code in them."""

from __future__ import annotations

import warnings
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from dhpf.config import located_weights
from dhpf.errors import InputError
from dhpf.regular_files import UnreadableFile, open_regular

StateDict = dict[str, Tensor]

MAX_FILE_BYTES = 10_000_000_000
"""Files of more bytes than this are not read; the largest network's weights have a tenth."""


def read_state_dict(path: str | Path) -> StateDict:
    """Reads a state dict from a safetensors or torch file.

    Args:
        path: of the file; "package:NAME/PATH" is a file that an installed Python package brings.

    Raises:
        InputError: missing, damaged, a pickle of anything but tensors, or a number in it is not finite.
    """
    file = located_weights(path)
    state = read_safetensors(file, f"weights {path}") if file.suffix == ".safetensors" else _read_torch(file, path)
    require_finite(state, f"weights {path}")
    return state


def read_safetensors(file: Path, where: str) -> StateDict:
    """The tensors of a safetensors file.

    Args:
        where: how to call the file in an error.

    Raises:
        InputError: it is none, or too large.
    """
    try:
        open_regular(file, where, MAX_FILE_BYTES).close()
        tensors: StateDict = safetensors.torch.load_file(file)
    except UnreadableFile:
        raise
    # The header is JSON of anybody's, and its errors are of many kinds; each means the same here.
    except Exception as error:
        raise InputError(f"{where}: not a safetensors file ({error})") from error
    return tensors


def _read_torch(file: Path, path: str | Path) -> StateDict:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are refused anyway
            with open_regular(file, f"weights {path}", MAX_FILE_BYTES) as opened:
                state = torch.load(opened, map_location="cpu", weights_only=True)
    except UnreadableFile:
        raise
    # Hostile bytes make the reader fail in many ways; each means the same here.
    except Exception as error:
        what = "not a torch or safetensors file of weights alone; a pickle of anything else is never loaded"
        raise InputError(f"weights {path}: {what}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) and isinstance(k, str) for k, v in state.items()):
        raise InputError(f"weights {path}: holds no state dict (names with tensors)")
    return state


def require_finite(state: StateDict, where: str) -> None:
    """Refuses weights with which a network would match without a word, and wrongly.

    Raises:
        InputError: an entry holds a number that is not finite, or numbers of a complex type.
    """
    for key, value in state.items():
        if value.is_complex() or value.layout != torch.strided:
            raise InputError(f"{where}: entry {key!r} holds {value.dtype} ({value.layout}), no plain real numbers")
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"{where}: entry {key!r} holds a number that is not finite: a damaged file, or a training that diverged"
            )


def load_strictly(network: nn.Module, state: StateDict, backbone: str, origin: str) -> None:
    """Loads weights into a network that has only what it needs; entries that it does not have are left out.

    Raises:
        InputError: an entry is missing, or of another shape or kind of number.
    """
    expected = network.state_dict()
    for key, value in expected.items():
        found = state.get(key)
        if found is None and key.endswith("num_batches_tracked"):
            continue
        what = misfit(found, value)
        if what is not None:
            raise InputError(f"weights {origin}: not those of backbone {backbone!r}; entry {key!r} {what}")
    network.load_state_dict({k: v for k, v in state.items() if k in expected}, strict=False)


def misfit(found: Tensor | None, wanted: Tensor) -> str | None:
    """What keeps an entry of a file from taking the place of a network's; None if nothing does."""
    if found is None:
        return "is missing"
    if found.shape != wanted.shape:
        return f"has the shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    if found.is_floating_point() != wanted.is_floating_point():
        return f"holds {str(found.dtype).removeprefix('torch.')}, not {str(wanted.dtype).removeprefix('torch.')}"
    return None
