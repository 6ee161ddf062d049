"""Random weights that every platform draws alike: uniform numbers of numpy's frozen Mersenne Twister.

The measured outputs were taken with these; meta.json holds the seeds and the digests that must come out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torchvision
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]

STAGES = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def backbone_weights(name: str, seed: int) -> Weights:
    """A state dict of torchvision's network, drawn in the order of its entries."""
    random = np.random.RandomState(seed)
    weights: Weights = {}
    for key, value in torchvision.models.get_model(name, weights=None).state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        shape = tuple(value.shape)
        if key.startswith("fc."):
            weights[key] = np.zeros(shape, np.float32)
            continue
        weights[key] = _uniform(random, shape, *_backbone_range(key, shape))
    return weights


def _backbone_range(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if len(shape) == 4:
        bound = np.sqrt(6.0 / (shape[0] * shape[2] * shape[3]))
        return -bound, bound
    if key.endswith("running_var"):
        return 0.5, 1.5
    if key.endswith(("running_mean", "bias")):
        return -0.1, 0.1
    # Scales at the ends of residual branches are small, so that activations stay bounded over many blocks.
    return (0.2, 0.6) if ".bn3." in key or ".downsample." in key else (0.8, 1.2)


def learned_weights(name: str, seed: int) -> Weights:
    """Projections and gates under the published names, without the running statistics."""
    random = np.random.RandomState(seed)
    return {
        key: _uniform(random, shape, low, high)
        for layer, width in enumerate(_widths(name))
        for key, shape, low, high in _learned_entries(layer, width)
    }


def _learned_entries(layer: int, width: int) -> Iterator[tuple[str, tuple[int, ...], float, float]]:
    bound = np.sqrt(6.0 / width)
    for module, hidden in (("reduction_ffns", width // 8), ("gumbel_ffns", 32)):
        yield f"{module}.{layer}.0.weight", (hidden, width, 1, 1), -bound, bound
        yield f"{module}.{layer}.1.weight", (hidden,), 0.5, 1.5
        yield f"{module}.{layer}.1.bias", (hidden,), -0.3, 0.3
    yield f"gumbel_ffns.{layer}.3.weight", (2, 32, 1, 1), -0.5, 0.5


def _widths(name: str) -> list[int]:
    return [64] + [256 * 2**stage for stage, blocks in enumerate(STAGES[name]) for _ in range(blocks)]


def _uniform(random: np.random.RandomState, shape: tuple[int, ...], low: float, high: float) -> NDArray[np.float32]:
    return (low + (high - low) * random.random_sample(shape)).astype(np.float32)


def digest(weights: Weights) -> str:
    """The sha256 of the names and values of a state dict."""
    result = hashlib.sha256()
    for key in sorted(weights):
        result.update(key.encode())
        result.update(np.ascontiguousarray(weights[key]).tobytes())
    return result.hexdigest()
