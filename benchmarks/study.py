"""`python -m benchmarks.study`: compares trainings with different selection rates, seeds and training pairs.

Reads shard sets that `dhpf run pf-pascal-lite --only shard` made; `mixed` and `taught` also read those of other
workflows. Each training runs in this process; its epoch with the best validation PCK is tested. Writes
docs/study-NAME.json after each training and leaves out trainings that the file has; `rates` also draws
docs/study-rates.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning import Training, learn
from dhpf.config import ModelConfig, SupervisionConfig
from dhpf.drawing import draw_curves, save_picture
from dhpf.drawing.style import SMALL_POINTS
from dhpf.model.engines.choose import choose_engine
from dhpf.model.transfer import cells_of_points
from dhpf.pipelines.commands.answers import shown_log
from dhpf.pipelines.config import TrainConfig
from dhpf.pipelines.inputs.shard_set import ShardSet, open_shard_set
from dhpf.pipelines.training.frozen_maps import FrozenMaps
from dhpf.pipelines.training.learner import CheckedPair, Learner
from dhpf.pipelines.training.pair_dataset import PairDataset
from dhpf.storage import location_of

DOCS = Path(__file__).parents[1] / "docs"
TESTS = ("pf-pascal/test", "pf-willow/test")
CURVES = (
    ("pf-pascal/test", "image", "PF-PASCAL (image)"),
    ("pf-willow/test", "keypoint-extent", "PF-WILLOW (keypoint-extent)"),
    ("pf-willow/test", "legacy-padded", "PF-WILLOW (legacy-padded)"),
)
NUM_TIMED = 40
"""Pairs whose matching is timed."""

NAME_WIDTH = 2.0
"""Width of a point's name in a chart, in milliseconds of its axis."""


def rates(epochs: int) -> list[Training]:
    """The paper's projections (to full width, started near the identity) at several selection rates."""
    model = ModelConfig(projection_divisor=1, exponent=4)
    base = TrainConfig(on="pf-pascal", epochs=epochs, projection_start="near-identity", num_workers=1)
    return [
        Training(f"{rate:g}", model, dataclasses.replace(base, supervision=SupervisionConfig(selection_rate=rate)))
        for rate in (0.3, 0.5, 0.7, 0.85, 1.0)
    ]


def seeds(epochs: int) -> list[Training]:
    """Gates over unprojected maps, as pf-pascal-lite learns them, with three seeds; once with a bfloat16 backbone."""
    trainings = _gates_alone(SupervisionConfig(selection_weight=0.1), epochs)
    coarse = dataclasses.replace(trainings[0].config, precision="bfloat16")
    return [*trainings, Training("seed 0, bfloat16", trainings[0].model, coarse)]


def weak(epochs: int) -> list[Training]:
    """As `seeds`, but weakly supervised: learned from categories alone."""
    return _gates_alone(SupervisionConfig(kind="weak", selection_weight=0.1), epochs)


def mixed(epochs: int) -> list[Training]:
    """Whether training pairs of other sources (warped photos, a second data set) improve PF-WILLOW."""
    more = ("pf-pascal/train", "spair-71k/train", "photo-warps/train")
    gates = _gates_alone(SupervisionConfig(selection_weight=0.1), epochs)[0]
    projected = Training(
        "projections",
        dataclasses.replace(gates.model, projection="learned", projection_divisor=1, exponent=4),
        dataclasses.replace(gates.config, projection_start="near-identity"),
    )
    trainings = []
    for alone in (projected, gates):
        config = dataclasses.replace(alone.config, on=more, validate_on="pf-pascal/val")
        trainings += [alone, Training(f"{alone.name}, mixed", alone.model, config)]
    return trainings


def taught(epochs: int) -> list[Training]:
    """Residual projections of three fixed layers, learned without keypoints from photos of other categories.

    With three seeds; again with PF-PASCAL's keypoints added; once from those keypoints alone.
    """
    model = ModelConfig(selection="fixed", layers=(5, 11, 15), projection="residual", image_side=400)
    photos, keypoints = ("caltech-101/test",), ("pf-pascal/train",)
    config = TrainConfig(
        on=photos,
        validate_on="pf-pascal/val",
        supervision=SupervisionConfig(kind="contrastive", selection_weight=0),
        epochs=epochs,
        learning_rate=0.3,
    )
    named = {"seed": photos, "and keypoints, seed": photos + keypoints}
    trainings = [
        Training(f"{name} {seed}", model, dataclasses.replace(config, on=on, seed=seed))
        for name, on in named.items()
        for seed in (0, 1, 2)
    ]
    return [*trainings, Training("keypoints alone", model, dataclasses.replace(config, on=keypoints))]


def _gates_alone(supervision: SupervisionConfig, epochs: int) -> list[Training]:
    """Gates over unprojected maps with three seeds; at the start those of pf-pascal-lite's searched layers are open."""
    model = ModelConfig(projection="none", image_side=400)
    base = TrainConfig(
        on="pf-pascal", supervision=supervision, epochs=epochs, learning_rate=0.02, gates_start=(4, 7, 11, 13, 15, 16)
    )
    return [Training(f"seed {seed}", model, dataclasses.replace(base, seed=seed)) for seed in (0, 1, 2)]


STUDIES: dict[str, Callable[[int], list[Training]]] = {
    "rates": rates,
    "seeds": seeds,
    "weak": weak,
    "mixed": mixed,
    "taught": taught,
}


class Bench:
    """Runs the trainings of a study on its shard sets, and tests what they learned."""

    def __init__(self, shards: Sequence[Path], trainings: Sequence[Training], maps: Path, every: int) -> None:
        configs = [training.config for training in trainings]
        names = {*TESTS, *(name for config in configs for name in (*config.train_sets, config.validation_set))}
        self._sets = {name: _open(shards, name) for name in names}
        self._maps, self._every = maps, every

    def run(self, training: Training) -> dict[str, Any]:
        """PCK@0.1 on each test set by each threshold, layers and milliseconds per pair."""
        learner = learn(training, self._sets, self._maps)
        found: dict[str, Any] = {"training": dataclasses.asdict(training)}
        for name in TESTS:
            found[name] = self._test(learner, self._sets[name], 1 if "pascal" in name else self._every)
        return found

    def _test(self, learner: Learner, shards: ShardSet, every: int) -> dict[str, float]:
        learner.val_data = data = _Every(shards, every)
        # Models match in single precision, whatever precision they were trained with.
        learner.maps = FrozenMaps(learner.network, self._maps / "tests", 0)
        checked = learner.validate()
        result = {}
        for threshold in shards.thresholds:
            sides = _Every(dataclasses.replace(shards, thresholds=(threshold,)), every)
            result[threshold] = statistics.fmean(_pck(pair, sides) for pair in checked)
        return result | _cost(learner, data)


def _open(folders: Sequence[Path], name: str) -> ShardSet:
    """A shard set from the first folder that has it."""
    return open_shard_set(location_of(next((f for f in folders if (f / name).is_dir()), folders[0])), name)


class _Every(PairDataset):
    """The pairs of a shard set, thinned out to one in `every`."""

    def __init__(self, shards: ShardSet, every: int) -> None:
        super().__init__(shards)
        self._places = self._places[::every]


def _pck(pair: CheckedPair, sides: PairDataset) -> float:
    keypoints = sides.keypoints([pair.number])
    assert keypoints is not None
    reach = 0.1 * float(keypoints.threshold[0])
    distance = ((pair.points - pair.true_points) ** 2).sum(axis=1) ** 0.5
    return float((pair.valid & (distance <= reach)).mean())


@torch.inference_mode()
def _cost(learner: Learner, data: PairDataset) -> dict[str, float]:
    """The mean number of layers of a pair, and the median CPU time in ms to match it once its images are described."""
    network, engine = learner.network, choose_engine("auto")
    layers, times = [], []
    for number in range(min(NUM_TIMED, len(data))):
        keypoints = data.keypoints([number])
        assert keypoints is not None
        features = network.embed(learner.maps.of([data.source(number), data.target(number)]))
        started = time.process_time()
        wanted = cells_of_points(keypoints.source, keypoints.valid)
        _, selection = network.match(features, features, [(0, 1)], wanted, engine)
        times.append(1000 * (time.process_time() - started))
        layers.append(float(selection.sum()))
    return {"layers": statistics.fmean(layers), "milliseconds": statistics.median(times)}


def _draw(results: dict[str, dict[str, Any]], out: Path) -> None:
    """PCK against the cost of a pair; one curve per test set, one point per training, named beside the first curve."""
    points = {
        title: {name: (r[test]["milliseconds"], 100 * r[test][threshold]) for name, r in results.items()}
        for test, threshold, title in CURVES
    }
    curves = {title: sorted(of_test.values()) for title, of_test in points.items()}
    title = "PCK and cost by selection rate (beside the points)"
    figure = draw_curves(curves, "CPU milliseconds per pair", "PCK@0.1, %", title)
    named = sorted(next(iter(points.values())).items(), key=lambda entry: entry[1])
    for number, (name, point) in enumerate(named):
        # Of points that lie close together every other one is named below.
        is_close = number > 0 and point[0] - named[number - 1][1][0] < NAME_WIDTH and number % 2 == 0
        offset = (0, -16) if is_close else (0, 9)
        figure.axes[0].annotate(name, point, offset, textcoords="offset points", ha="center", fontsize=SMALL_POINTS)
    save_picture(figure, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--shards", type=Path, nargs="+", default=[Path("dhpf-work/pf-pascal-lite/shard")])
    parser.add_argument("--maps", type=Path, required=True, help="folder that caches backbone maps, up to 20 GB")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--every", type=int, default=9, help="test every Nth pair of PF-WILLOW (default: 9)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trainings = STUDIES[arguments.study](arguments.epochs)
    bench = Bench(arguments.shards, trainings, arguments.maps, arguments.every)
    out = DOCS / f"study-{arguments.study}.json"
    results: dict[str, dict[str, Any]] = json.loads(out.read_text()) if out.is_file() else {}
    for training in trainings:
        if training.name not in results:
            results[training.name] = bench.run(training)
            out.write_text(json.dumps(results, indent=1) + "\n")
        print(training.name, {name: results[training.name][name] for name in TESTS}, flush=True)
    if arguments.study == "rates":
        _draw(results, out.with_suffix(".png"))


if __name__ == "__main__":
    with shown_log():
        main()
