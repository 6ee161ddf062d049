"""`make bench`: the cost of a pair, compared with the published way of computing it, in one process.

Times are CPU milliseconds of one thread, which a busy machine lengthens less than wall time. Half of the layers are
selected. The weights are random, because the cost does not depend on them. Where there is a CUDA GPU its speed is
measured, too (gpu.py). Settings that are not in the published method are compared with matching without them
(--settings). Writes bench.json: ours, published and ratio of each figure, by name. On a machine without a GPU, figures
of a GPU that the file has already are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import gpu
from benchmarks.figures import compared, machine, write_figures
from benchmarks.memory import extra_megabytes, resident_megabytes
from benchmarks.published import PublishedMatcher
from benchmarks.subject import NUM_KEYPOINT_CELLS, Subject, drawn_network
from benchmarks.training import TrainingSubject
from dhpf.checkpoint import build_network
from dhpf.config import EngineName, ModelConfig
from dhpf.frame import NUM_CELLS
from dhpf.model.engines.choose import choose_engine
from dhpf.model.features import ImageFeatures
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.commands.answers import shown_log
from dhpf.pipelines.training.freed_memory import return_freed_memory

CPU_ENGINES: tuple[EngineName, ...] = ("torch", "compiled")


Work = Callable[[], object]


def cpu_milliseconds(works: dict[str, tuple[Work, int]], rounds: int) -> dict[str, float]:
    """Median CPU time in milliseconds of each of several calls, by name.

    The calls take turns, so that a slow phase of the machine affects all of them.

    Args:
        works: by name, the call and how often it is made in a round.
        rounds: that are counted; one more before them is a warm-up.
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
    """Every figure, by name.

    Args:
        all_pairs: numbers of images of which all pairs are matched.
        rounds: of the calls whose median is taken.
    """
    results: dict[str, dict[str, float]] = {}

    def note(name: str, ours: float, published: float) -> None:
        ratio = published / ours
        results[name] = compared(ours, published, ratio)
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
        works[f"cached_pair_{name}"] = (partial(subject.match, features, [(0, 1)], engine), 3)
    times = cpu_milliseconds(works, rounds)
    published = times.pop("published")
    for figure, ours in times.items():
        note(figure, ours, published)
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
    for figure, ours in cpu_milliseconds(works, 1).items():
        note(figure, ours, published_steps["weak" if figure == "weak_step" else "strong"])
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as alone:
        note("strong_step_extra_mb", *alone.map(step_memory, ("ours", "published")))
    return results


def step_memory(way: str) -> float:
    """Highest extra memory of a strong step in MB, in a process that does nothing else.

    An earlier step has made the gradients and buffers, as in a training.
    """
    torch.set_num_threads(1)
    training = TrainingSubject(drawn_network("resnet101"))
    step = training.published_strong
    if way == "ours":
        return_freed_memory()  # as a training worker does
        step = training.strong
    step()
    return extra_megabytes(step)


def settings_costs(rounds: int) -> dict[str, dict[str, float]]:
    """CPU milliseconds of a pair of described images with each setting beside the published ones, and without.

    The model is that of self-taught before training: three layers of EfficientNet-Lite0 at 400 pixels.
    """
    network = build_network(ModelConfig(selection="fixed", layers=(5, 11, 15), projection="none", image_side=400))
    images = torch.randint(0, 256, (2, 3, 400, 400), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = torch.zeros(1, NUM_CELLS, dtype=torch.bool)
    wanted[:, :: NUM_CELLS // NUM_KEYPOINT_CELLS] = True
    works: dict[str, tuple[Work, int]] = {}
    for name, settings in SETTINGS.items():
        network.config = dataclasses.replace(network.config, **(SETTINGS["published"] | settings))
        with torch.inference_mode():
            features = network.describe(images)
        works[name] = partial(_matched, network, network.config, features, wanted), 3
    times = cpu_milliseconds(works, rounds)
    published = times.pop("published")
    for name, ours in times.items():
        print(f"settings_{name:<24} {ours:>10.1f} {published:>12.1f} {published / ours:>8.2f}x", flush=True)
    return {f"settings_{name}": compared(ours, published, published / ours) for name, ours in times.items()}


SETTINGS: dict[str, dict[str, Any]] = {
    "published": {"readout": "cell", "votes": "plain", "features": "plain"},
    "soft": {"readout": "soft"},
    "foreground": {"votes": "foreground"},
    "signed_sqrt": {"features": "signed-sqrt"},
    "soft_foreground": {"readout": "soft", "votes": "foreground"},
    "all": {"readout": "soft", "votes": "foreground", "features": "signed-sqrt"},
}


def _matched(network: HyperpixelNetwork, config: ModelConfig, features: ImageFeatures, wanted: Tensor) -> object:
    network.config = config
    return network.match(features, features, [(0, 1)], wanted, choose_engine("compiled"))


def published_pair(subject: Subject) -> Work:
    """A call that matches a pair, from its two images, in the published way."""
    matcher = PublishedMatcher.of(subject.network)
    source, target = subject.images[:1], subject.images[1:2]
    selected = subject.gates[0].bool()

    def pair() -> Tensor:
        maps = matcher.extract(source), matcher.extract(target)
        matcher.selection(*maps)
        return matcher.from_maps(*maps, selected)

    return pair


def memory(subject: Subject, features: ImageFeatures) -> tuple[float, float]:
    """Highest extra memory of matching one pair of described images in MB: ours and the published way's.

    Ours includes its buffers; the published one leaves out the bins that it keeps between pairs.
    """
    ours = extra_megabytes(lambda: subject.match(features, [(0, 1)], choose_engine("compiled")))
    before = resident_megabytes()
    matcher = PublishedMatcher.of(subject.network)
    print(f"  (the published way keeps {resident_megabytes() - before:.0f} MB of bins besides)")
    maps = matcher.extract(subject.images[:1]), matcher.extract(subject.images[1:2])
    return ours, extra_megabytes(lambda: matcher.from_maps(*maps, subject.gates[0].bool()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bench.json", help="file to write (default: bench.json)")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--settings", action="store_true", help="only what settings cost; other figures stay")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    costs = settings_costs(1 if arguments.quick else 7)
    if arguments.settings:
        write_figures(Path(arguments.out), costs, "")
        return
    results: dict[str, Any] = dict(measure((6,), 1) if arguments.quick else measure((24, 64), 7))
    write_figures(Path(arguments.out), results | costs | {"machine": machine()}, "gpu_")
    if torch.cuda.is_available():
        gpu.main(["--out", arguments.out])


if __name__ == "__main__":
    with shown_log():
        main()
