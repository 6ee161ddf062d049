"""`make bench-gpu`: speed on a GPU, compared with the published way on the same GPU.

Measures pairs per second, with the highest number that the GPU's arithmetic allows, and milliseconds of a training
step. Times are wall time, because the CPU waits while the GPU works. The images lie in the GPU's memory; the time of
pairs includes describing their images.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.figures import compared, machine, write_figures
from benchmarks.published import PublishedMatcher
from benchmarks.subject import BATCH_SIZE, Subject, drawn_network
from benchmarks.training import TrainingSubject
from dhpf.model.engines.engine import MatchEngine
from dhpf.model.engines.row_blocks import RowBlockEngine
from dhpf.model.engines.triton_engine import TritonEngine
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.matching.block_matching import MATCH_BATCH

IMAGES_AT_ONCE = 16
PUBLISHED_PAIRS = 30
FEW_IMAGES = 12
"""Images for an engine that is slow, and for warm-ups."""
KERNELS = ("multiply", "spread_targets", "make_appearance", "find_maxima", "find_filtered")
TIMED_STEPS = 7
IMAGE_OPERATIONS = 20.1e9
"""Floating-point operations of backbone and projections for an image, ResNet-101 (docs/algorithm.md, section 12)."""
UPSAMPLING_OPERATIONS = 0.2e9
"""Floating-point operations of upsampling for a pair (docs/algorithm.md, section 12)."""
OPERATIONS_PER_CYCLE = {(8, 0): 128}
"""float32 operations of a multiprocessor per cycle, by compute capability; others from 8.0 on do 256."""


def measure(subject: Subject) -> dict[str, dict[str, float]]:
    """Pairs per second when all pairs of a subject's images are matched, by engine and by pairs at once.

    Each figure holds ours, the published way's, their ratio, and as "floor" the rate that arithmetic allows at best.
    """
    published = published_pairs_per_second(subject)
    best = best_pairs_per_second(subject)
    num_images, device = len(subject.images), subject.images.device
    ways: dict[str, tuple[MatchEngine, int, int]] = {
        "triton": (TritonEngine(), num_images, MATCH_BATCH["cuda"]),
        f"triton_by_{BATCH_SIZE}": (TritonEngine(), num_images, BATCH_SIZE),
        "torch": (RowBlockEngine(device), FEW_IMAGES, BATCH_SIZE),
    }
    results = {}
    for name, (engine, number, at_once) in ways.items():
        all_pairs_per_second(subject, FEW_IMAGES, engine, at_once)  # compiles the kernels
        ours = all_pairs_per_second(subject, number, engine, at_once)
        found = compared(ours, published, ours / published)
        results[f"gpu_all_pairs_{number}_{name}"] = found | {"floor": round(best, 1)}
    return results


def measure_shares(subject: Subject) -> dict[str, float]:
    """The GPU time that each kernel takes when a batch of pairs of described images is matched, in us per pair."""
    features, engine = subject.describe(FEW_IMAGES, IMAGES_AT_ONCE), TritonEngine()
    pairs = list(itertools.combinations(range(FEW_IMAGES), 2))[: MATCH_BATCH["cuda"]]
    subject.match(features, pairs, engine)  # compiles the kernels
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        subject.match(features, pairs, engine)
        torch.cuda.synchronize()
    times = {event.key: event.self_device_time_total / len(pairs) for event in profiler.key_averages()}
    ours = {name: round(time, 1) for name, time in times.items() if name in KERNELS}
    return ours | {"else": round(sum(times.values()) - sum(times[name] for name in ours), 1)}


def measure_steps(network: HyperpixelNetwork) -> dict[str, dict[str, float]]:
    """Milliseconds of training steps, ours and the published way's.

    Args:
        network: lies on the GPU.
    """
    training = TrainingSubject(network)
    strong, weak = _milliseconds(training.published_strong), _milliseconds(training.published_weak)
    steps: dict[str, tuple[Callable[[], Tensor], float]] = {
        "gpu_strong_step": (training.strong, strong),
        "gpu_strong_step_cached": (lambda: training.strong(training.maps), strong),
        "gpu_weak_step": (training.weak, weak),
    }
    times = {name: (_milliseconds(step), published) for name, (step, published) in steps.items()}
    return {name: compared(ours, published, published / ours) for name, (ours, published) in times.items()}


def _milliseconds(step: Callable[[], Tensor]) -> float:
    """Median wall time of a step over several calls."""
    step()  # compiles the kernels
    times, result = [], step()
    for _ in range(TIMED_STEPS):
        started = _now(result)
        step()
        times.append(1000 * (_now(result) - started))
    return statistics.median(times)


def all_pairs_per_second(subject: Subject, num_images: int, engine: MatchEngine, at_once: int) -> float:
    """Rate at which all pairs of the first `num_images` images are matched, `at_once` in a batch.

    The time includes describing each image once, and the gates' decisions.
    """
    pairs = list(itertools.combinations(range(num_images), 2))
    started = _now(subject.images)
    features = subject.describe(num_images, IMAGES_AT_ONCE)
    for begin in range(0, len(pairs), at_once):
        subject.match(features, pairs[begin : begin + at_once], engine)
    return len(pairs) / (_now(subject.images) - started)


@torch.inference_mode()
def published_pairs_per_second(subject: Subject) -> float:
    """Rate of the published way, which matches one pair after the other from its two images."""
    matcher, images = PublishedMatcher.of(subject.network), subject.images
    started = 0.0
    for number in range(-3, PUBLISHED_PAIRS):
        if number == 0:  # the pairs before this one are a warm-up
            started = _now(images)
        first = number % (len(images) - 1)
        maps = matcher.extract(images[first : first + 1]), matcher.extract(images[first + 1 : first + 2])
        matcher.selection(*maps)
        matcher.from_maps(*maps, subject.gates[0].bool())
    return PUBLISHED_PAIRS / (_now(images) - started)


def best_pairs_per_second(subject: Subject) -> float:
    """The highest rate that the GPU's float32 units allow: each product computed once, and all else free."""
    maps = subject.describe(1).maps
    layers = (m for m, chosen in zip(maps, subject.gates[0].tolist(), strict=True) if chosen)
    products = sum(2 * m.shape[1] * m.shape[-1] ** 4 for m in layers)
    share_of_images = 2 / (len(subject.images) - 1)  # images / pairs
    operations = products + UPSAMPLING_OPERATIONS + IMAGE_OPERATIONS * share_of_images
    properties = torch.cuda.get_device_properties(subject.images.device)
    per_cycle = OPERATIONS_PER_CYCLE.get((properties.major, properties.minor), 256)
    return properties.multi_processor_count * per_cycle * properties.clock_rate * 1e3 / operations


def _now(images: Tensor) -> float:
    """The time in seconds, read once all work given to the images' device is done."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench.json", help="file to write (default: bench.json)")
    parser.add_argument("--images", type=int, default=64, help="images, of which all pairs are matched (default: 64)")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU here")
    subject = Subject("resnet101", options.images, "cuda")
    results = measure(subject)
    shares = {"gpu_microseconds_per_pair": measure_shares(subject)}
    results |= measure_steps(drawn_network("resnet101").cuda())
    for name, found in results.items():
        floor = f", floor {found['floor']:.0f}" if "floor" in found else ""
        unit = "pairs/s" if "floor" in found else "ms"
        ours, published, ratio = (found[key] for key in ("ours", "published", "ratio"))
        print(f"{name:<32} {ours:>10.1f} {published:>10.1f} {unit}, {ratio:.1f}x{floor}")
    print(shares)
    write_figures(Path(options.out), results | shares | {"gpu_machine": machine()}, "")


if __name__ == "__main__":
    main()
