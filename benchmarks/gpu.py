"""Pairs per second on a GPU, beside the published way on the same GPU and beside what its arithmetic allows at best.

Wall time: the GPU works while the CPU waits. Images lie in its memory, described within the time measured.
"""

from __future__ import annotations

import itertools
import time

import torch
from torch import Tensor

from benchmarks.published import PublishedMatcher
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.engines.row_blocks import RowBlockEngine
from dhpf.model.engines.triton_engine import TritonEngine
from dhpf.model.network import HyperpixelNetwork, ImageFeatures

IMAGES_AT_ONCE = 16
PAIRS_AT_ONCE = 64
PUBLISHED_PAIRS = 30
IMAGE_OPERATIONS = 20.1e9
"""Of backbone and projections, ResNet-101 (ALGORITHM section 12)."""
UPSAMPLING_OPERATIONS = 0.2e9
"""Of a pair (ALGORITHM section 12)."""
OPERATIONS_PER_CYCLE = {(8, 0): 128}
"""float32 operations of a multiprocessor, by compute capability; 256 in the others since 8.0."""


def measure(network: HyperpixelNetwork, images: Tensor, gates: Tensor, wanted: Tensor) -> dict[str, dict[str, float]]:
    """Pairs per second of all pairs of the images: ours by engine, published, ratio, and the floor's.

    Args:
        network: on the CPU; moved to the GPU.
        images: (M, 3, 240, 240) uint8.
        gates, wanted: (1, L) layers and (1, N) source cells of every pair.
    """
    device = torch.device("cuda")
    network, images, gates, wanted = network.to(device), images.to(device), gates.to(device), wanted.to(device)
    published = published_pairs_per_second(network, images, gates[0].bool())
    best = best_pairs_per_second(device, network, images, gates[0].bool())
    engines: dict[str, MatchEngine] = {
        "triton": TritonEngine(),
        "triton_tf32x3": TritonEngine("tf32x3"),
        "torch": RowBlockEngine(device),
    }
    results = {}
    for name, engine in engines.items():
        all_pairs_per_second(network, images[:12], gates, wanted, engine)  # compiles
        ours = all_pairs_per_second(network, images, gates, wanted, engine)
        results[f"gpu_all_pairs_{len(images)}_{name}"] = {
            "ours": round(ours, 1),
            "published": round(published, 1),
            "ratio": round(ours / published, 2),
            "floor": round(best, 1),
        }
    return results


@torch.inference_mode()
def all_pairs_per_second(
    network: HyperpixelNetwork, images: Tensor, gates: Tensor, wanted: Tensor, engine: MatchEngine
) -> float:
    """All pairs of the images, each image described once; the gates' decision included."""
    pairs = list(itertools.combinations(range(len(images)), 2))
    started = _now(images)
    features = ImageFeatures.concatenate([network.describe(batch) for batch in images.split(IMAGES_AT_ONCE)])
    assert network.selector is not None and features.gate_activations is not None
    for begin in range(0, len(pairs), PAIRS_AT_ONCE):
        batch = pairs[begin : begin + PAIRS_AT_ONCE]
        sources, targets = torch.tensor(batch, device=images.device).T
        # Its cost; the layers are given, so that both ways use the same.
        network.selector(features.gate_activations[sources], features.gate_activations[targets])
        every = len(batch), -1
        network.match_selected(features, features, batch, gates.expand(every), wanted.expand(every), engine)
    return len(pairs) / (_now(images) - started)


@torch.inference_mode()
def published_pairs_per_second(network: HyperpixelNetwork, images: Tensor, selected: Tensor) -> float:
    """Pairs from their images, one after the other."""
    matcher = PublishedMatcher.of(network)
    started = 0.0
    for number in range(-3, PUBLISHED_PAIRS):
        if number == 0:  # those before are not counted
            started = _now(images)
        first = number % (len(images) - 1)
        maps = matcher.extract(images[first : first + 1]), matcher.extract(images[first + 1 : first + 2])
        matcher.selection(*maps)
        matcher.from_maps(*maps, selected)
    return PUBLISHED_PAIRS / (_now(images) - started)


def best_pairs_per_second(device: torch.device, network: HyperpixelNetwork, images: Tensor, selected: Tensor) -> float:
    """What the GPU's float32 units would do if each product were taken once, and nothing else cost anything."""
    with torch.inference_mode():
        maps = network.describe(images[:1]).maps
    layers = (m for m, chosen in zip(maps, selected.tolist(), strict=True) if chosen)
    products = sum(2 * m.shape[1] * m.shape[-1] ** 4 for m in layers)
    share_of_images = 2 / (len(images) - 1)  # images / pairs
    operations = products + UPSAMPLING_OPERATIONS + IMAGE_OPERATIONS * share_of_images
    properties = torch.cuda.get_device_properties(device)
    per_cycle = OPERATIONS_PER_CYCLE.get((properties.major, properties.minor), 256)
    return properties.multi_processor_count * per_cycle * properties.clock_rate * 1e3 / operations


def _now(images: Tensor) -> float:
    """Seconds, when all work that was given to the images' device is done."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter()
