"""`make bench`: what a pair costs, beside the published way of computing it, in one process.

CPU milliseconds of one thread (a busy machine slows a clock, not this), half of the layers selected, weights drawn at
random: they change no cost. Where there is a CUDA GPU, also pairs per second on it (gpu.py). Writes bench.json:
name -> ours, published, ratio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from tqdm import tqdm

from benchmarks import gpu
from benchmarks.memory import extra_megabytes, resident_megabytes
from benchmarks.published import PublishedMatcher
from benchmarks.training import TrainingSubject
from dhpf.checkpoint import build_network
from dhpf.config import EngineName, ModelConfig
from dhpf.model.best_cells import BestCells
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.problem import MatchEngine
from dhpf.model.geometry import NUM_CELLS
from dhpf.model.network import HyperpixelNetwork, ImageFeatures
from pipelines.config import MatchConfig
from pipelines.freed_memory import return_freed_memory

NUM_KEYPOINT_CELLS = 60
"""Source cells whose match is asked for: about what 10 keypoints touch."""

BATCH_SIZE = MatchConfig.batch_size

CPU_ENGINES: tuple[EngineName, ...] = ("torch", "compiled")


class Subject:
    """A network with drawn weights, some images, and both ways of matching them.

    Attributes:
        gates: (1, L) half of the layers.
    """

    def __init__(self, backbone: str, num_images: int) -> None:
        self.network = drawn_network(backbone)
        generator = torch.Generator().manual_seed(0)
        shape = (num_images, 3, 240, 240)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.gates = torch.zeros(1, len(self.network.layers))
        self.gates[:, ::2] = 1
        self.wanted = torch.zeros(1, NUM_CELLS, dtype=torch.bool)
        self.wanted[:, :: NUM_CELLS // NUM_KEYPOINT_CELLS] = True

    @torch.inference_mode()
    def describe(self, num_images: int) -> ImageFeatures:
        batches = self.images[:num_images].split(1)
        return ImageFeatures.concatenate([self.network.describe(batch) for batch in batches])

    @torch.inference_mode()
    def match(self, features: ImageFeatures, pairs: Sequence[tuple[int, int]], engine: MatchEngine) -> BestCells:
        """Pairs of described images, their gates' decisions included."""
        first, second = (features.gate_activations[list(side)] for side in zip(*pairs, strict=True))  # type: ignore[index]
        assert self.network.selector is not None
        self.network.selector(first, second)  # its cost; the layers are given, so that both ways use the same
        gates, wanted = (of_pair.expand(len(pairs), -1) for of_pair in (self.gates, self.wanted))
        return self.network.match_selected(features, features, pairs, gates, wanted, engine)

    @torch.inference_mode()
    def match_cold(self, engine: MatchEngine) -> BestCells:
        """The first two images, as HyperpixelNetwork.match_images does, by the given gates."""
        network = self.network
        maps = network.extract(self.images[:2])
        assert network.selector is not None
        activations = network.selector.activate(maps)
        network.selector(activations[:1], activations[1:])  # its cost
        features = network.embed_layers(maps, activations, (self.gates[0] > 0).tolist())
        return network.match_selected(features, features, [(0, 1)], self.gates, self.wanted, engine)

    def all_pairs(self, num_images: int, engine: MatchEngine, progress: str) -> float:
        """CPU milliseconds per pair to describe so many images and match each with each, in an actor's batches."""
        pairs = list(itertools.combinations(range(num_images), 2))
        started = time.process_time()
        features = self.describe(num_images)
        with tqdm(total=len(pairs), desc=progress, unit="pair", file=sys.stderr, leave=False) as bar:
            for first in range(0, len(pairs), BATCH_SIZE):
                batch = pairs[first : first + BATCH_SIZE]
                self.match(features, batch, engine)
                bar.update(len(batch))
        return 1000 * (time.process_time() - started) / len(pairs)


def drawn_network(backbone: str) -> HyperpixelNetwork:
    """A dynamic network with weights drawn at random, tame enough that no value overflows."""
    torch.manual_seed(0)
    drawn = torchvision.models.get_model(backbone, weights=None)
    state = {k: v * 0.2 if k.endswith("bn3.weight") else v for k, v in drawn.state_dict().items()}
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(state, file.name)
        return build_network(ModelConfig(backbone=backbone, weights=file.name))  # type: ignore[arg-type]


Work = Callable[[], object]


def cpu_milliseconds(works: dict[str, tuple[Work, int]], rounds: int) -> dict[str, float]:
    """Median CPU time of each of several calls, which take turns so that a slow minute meets them all.

    Args:
        works: by name, what to do and how often in a round.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, (work, repeats) in works.items():
            for _ in range(repeats):
                started = time.process_time()
                work()
                if number:  # the first round is not counted
                    times[name].append(1000 * (time.process_time() - started))
    return {name: statistics.median(of_one) for name, of_one in times.items()}


def measure(all_pairs: tuple[int, ...], rounds: int) -> dict[str, dict[str, float]]:
    """Every figure, by name."""
    results: dict[str, dict[str, float]] = {}

    def note(name: str, ours: float, published: float) -> None:
        ratio = published / ours
        results[name] = {"ours": round(ours, 2), "published": round(published, 2), "ratio": round(ratio, 2)}
        print(f"{name:<24} {ours:>10.1f} {published:>12.1f} {ratio:>8.1f}x", flush=True)

    print(f"{'':<24} {'ours':>10} {'published':>12} {'ratio':>9}")
    subject = Subject("resnet101", max(2, *all_pairs))
    features = subject.describe(2)
    engines = {name: choose_engine(name) for name in CPU_ENGINES}
    compiled = engines["compiled"]
    works: dict[str, tuple[Work, int]] = {
        "published": (published_pair(subject), 1),
        "cold_pair": (lambda: subject.match_cold(compiled), 1),
    }
    for name, engine in engines.items():
        works[f"cached_pair_{name}"] = (lambda e=engine: subject.match(features, [(0, 1)], e), 3)  # type: ignore[misc]
    times = cpu_milliseconds(works, rounds)
    published = times.pop("published")
    for name, ours in times.items():
        note(name, ours, published)
    for number in all_pairs:
        note(f"all_pairs_{number}", subject.all_pairs(number, compiled, f"all pairs of {number}"), published)
    note("peak_extra_mb", *memory(subject, features))
    small = Subject("resnet50", 2)
    features_50 = small.describe(2)
    works = {
        "published": (published_pair(small), 1),
        "ours": (lambda: small.match(features_50, [(0, 1)], compiled), 3),
    }
    times = cpu_milliseconds(works, rounds)
    note("cached_pair_resnet50", times["ours"], times["published"])
    training = TrainingSubject(subject.network)
    published_steps = cpu_milliseconds(
        {"strong": (training.published_strong, 1), "weak": (training.published_weak, 1)}, 1
    )
    return_freed_memory()
    works = {
        "strong_step": (training.strong, 2),
        "strong_step_cached": (lambda: training.strong(training.maps), 2),
        "weak_step": (training.weak, 1),
    }
    for name, ours in cpu_milliseconds(works, 1).items():
        note(name, ours, published_steps["weak" if name == "weak_step" else "strong"])
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as alone:
        note("strong_step_extra_mb", *alone.map(step_memory, ("ours", "published")))
    return results


def step_memory(way: str) -> float:
    """Highest extra memory of a strong step in MB, in a process that does nothing else.

    Gradients and buffers stand from a step before, as within a training.
    """
    torch.set_num_threads(1)
    training = TrainingSubject(drawn_network("resnet101"))
    step = training.published_strong
    if way == "ours":
        return_freed_memory()  # as a training worker does
        step = training.strong
    step()
    return extra_megabytes(step)


def published_pair(subject: Subject) -> Work:
    """A pair from its two images, computed the published way."""
    matcher = PublishedMatcher.of(subject.network)
    source, target = subject.images[:1], subject.images[1:2]
    selected = subject.gates[0].bool()

    def pair() -> Tensor:
        maps = matcher.extract(source), matcher.extract(target)
        matcher.selection(*maps)
        return matcher.from_maps(*maps, selected)

    return pair


def memory(subject: Subject, features: ImageFeatures) -> tuple[float, float]:
    """Highest extra memory of one cached pair in MB, ours with its buffers and published without what it keeps."""
    ours = extra_megabytes(lambda: subject.match(features, [(0, 1)], choose_engine("compiled")))
    before = resident_megabytes()
    matcher = PublishedMatcher.of(subject.network)
    print(f"  (the published way keeps {resident_megabytes() - before:.0f} MB of bins besides)")
    maps = matcher.extract(subject.images[:1]), matcher.extract(subject.images[1:2])
    return ours, extra_megabytes(lambda: matcher.from_maps(*maps, subject.gates[0].bool()))


def measure_gpu(num_images: int) -> dict[str, dict[str, float]]:
    """Every figure of the GPU, by name."""
    subject = Subject("resnet101", num_images)
    results = gpu.measure(subject.network, subject.images, subject.gates, subject.wanted)
    for name, found in results.items():
        print(f"{name:<32} {found['ours']:>10.1f} {found['published']:>10.1f} pairs/s, floor {found['floor']:.0f}")
    return results


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    names = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    cpu = next(names, "").partition(":")[2].strip() or platform.processor()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"cpu": cpu, "torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", default="bench.json", help="file to write (default: bench.json)")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = dict(measure((6,), 1) if arguments.quick else measure((24, 64), 7))
    if torch.cuda.is_available():
        results |= measure_gpu(12 if arguments.quick else 64)
    Path(arguments.out).write_text(json.dumps(results | {"machine": machine()}, indent=2) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
