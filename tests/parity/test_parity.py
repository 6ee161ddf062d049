"""Our numbers against those measured with the published implementation.

A small set lies in `measured/` and always runs; DHPF_REFERENCE names a folder with the whole set.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor
from weights import backbone_weights, digest, learned_weights

from dhpf.checkpoint import build_network, load_network
from dhpf.config import EngineName, HoughBinsName, ModelConfig, SupervisionConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.engine import BestCells
from dhpf.model.engines.row_blocks import RowBlockEngine
from dhpf.model.features import ImageFeatures
from dhpf.model.gates import LayerGates
from dhpf.model.global_batch import TrainingPairs
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.training_step import embed_step
from dhpf.model.transfer import cells_of_points, mutual_filter, transfer
from dhpf.supervision import (
    SUPERVISIONS,
    KeypointBatch,
    Objective,
    Step,
    keypoint_weights,
    negative_pairs,
)

MEASURED = Path(__file__).parent / "measured"
REFERENCE = Path(os.environ.get("DHPF_REFERENCE", Path(__file__).parents[2].parent / "shared" / "reference"))

ENGINES_UNDER_TEST: dict[str, tuple[EngineName, ...]] = {"cpu": ("torch", "compiled"), "cuda": ("torch", "triton")}
CORRELATION_TOLERANCE = 1e-5
"""Of the maximum; sums and rows."""
BASE_MAP_TOLERANCE = 3e-4
"""The base map alone has features so near zero that the last digit of a convolution shows in their cosines: on two
threads we are within 1e-5 of the measured numbers, on one thread within 2e-4 in the maxima."""
KEYPOINT_TOLERANCE = 1e-3
"""Pixels, for keypoints whose best target is not a near tie."""
NEAR_TIE = 1e-4
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = {torch.float32: 1e-2, torch.float64: 2e-5}
"""In double precision too the backbone's weights are those of single precision, rounded once more where a normalisation
is folded into them: 7e-6 was seen for one gradient of 170."""
TOTAL_GRADIENT_TOLERANCE = 1e-3


def folders_with(name: str) -> list[Any]:
    """A test parameter for each set of measurements that has a file; without the whole set its tests are skipped.

    Where the whole set holds all numbers of the small one, they are compared once.
    """
    small, whole = MEASURED / name, REFERENCE / name
    found = [pytest.param(MEASURED, id="measured")] if small.exists() and not _holds(whole, small) else []
    absent = pytest.mark.skipif(not whole.exists(), reason=f"no reference set: {whole}")
    return [*found, pytest.param(REFERENCE, id="reference", marks=absent)]


@lru_cache
def _holds(whole: Path, small: Path) -> bool:
    if not whole.exists():
        return False
    seeds = [json.loads((path.parent / "meta.json").read_text())["seeds"] for path in (whole, small)]
    if any(seeds[0][kind].get(name) != seed for kind, of in seeds[1].items() for name, seed in of.items()):
        return False
    with np.load(whole) as more, np.load(small) as fewer:
        return all(name in more.files and np.array_equal(more[name], fewer[name]) for name in fewer.files)


def cases(suffix: str) -> list[Any]:
    """(folder, backbone) of every set that has <backbone><suffix>."""
    return [
        pytest.param(*param.values, backbone, id=f"{param.id}-{backbone}", marks=param.marks)
        for backbone in ("resnet50", "resnet101")
        for param in folders_with(f"{backbone}{suffix}")
    ]


@lru_cache(maxsize=1)
def checkpoints() -> tempfile.TemporaryDirectory[str]:
    """A folder for checkpoints, removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="dhpf-parity-")


@lru_cache(maxsize=4)
def weight_files(folder: Path, backbone: str) -> tuple[Path, Path]:
    """(backbone weights, learned weights under the published names) as safetensors files."""
    meta = json.loads((folder / "meta.json").read_text())
    drawn = backbone_weights(backbone, meta["seeds"]["bb"][backbone])
    learned = learned_weights(backbone, meta["seeds"]["ln"][backbone])
    assert digest(drawn) == meta["sets"][backbone]["sha_backbone"]
    assert digest(learned) == meta["sets"][backbone]["sha_learner"]
    statistics = np.load(folder / f"{backbone}_bn.npz")
    learned |= {key.removeprefix("bn/"): np.array(statistics[key]) for key in statistics.files}
    own = Path(tempfile.mkdtemp(prefix=f"{folder.name}-{backbone}-", dir=checkpoints().name))
    files = own / "backbone.safetensors", own / "learned.safetensors"
    for path, arrays in zip(files, (drawn, learned), strict=True):
        safetensors.torch.save_file({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}, path)
    return files


def network_of(folder: Path, backbone: str, bins: HoughBinsName = "current") -> HyperpixelNetwork:
    weights, learned = weight_files(folder, backbone)
    published = load_network(learned, weights=str(weights))
    if bins == "legacy":
        return published
    network = build_network(ModelConfig(backbone=published.config.backbone, weights=str(weights)))
    network.load_state_dict(published.state_dict())
    return network


def test_sets_with_other_seeds_do_not_spoil_each_others_weights(tmp_path: Path) -> None:
    meta = json.loads((MEASURED / "meta.json").read_text())
    drawn = backbone_weights("resnet50", 7), learned_weights("resnet50", 8)
    meta |= {"seeds": {"bb": {"resnet50": 7}, "ln": {"resnet50": 8}}}
    meta["sets"]["resnet50"] |= {"sha_backbone": digest(drawn[0]), "sha_learner": digest(drawn[1])}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    shutil.copy(MEASURED / "resnet50_bn.npz", tmp_path)
    before = weight_files(MEASURED, "resnet50")
    digests = [digest(safetensors.numpy.load_file(path)) for path in before]
    for path, ours, arrays in zip(before, weight_files(tmp_path, "resnet50"), drawn, strict=True):
        found = safetensors.numpy.load_file(ours)
        assert all(np.array_equal(found[key], value) for key, value in arrays.items())
        assert digest(safetensors.numpy.load_file(path)) == digests.pop(0) != digest(found)


@lru_cache(maxsize=2)
def images(folder: Path) -> Tensor:
    return torch.from_numpy(np.load(folder / "images.npz")["images"]).permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=2)
def described(folder: Path, backbone: str) -> tuple[HyperpixelNetwork, ImageFeatures]:
    network = network_of(folder, backbone)
    with torch.inference_mode():
        return network, network.describe(images(folder))


def pair_of(features: ImageFeatures, numbers: NDArray[np.int64]) -> tuple[ImageFeatures, ImageFeatures]:
    source, target = numbers
    return features[torch.tensor([source])], features[torch.tensor([target])]


def assert_close(ours: Any, measured: Any, tolerance: float = CORRELATION_TOLERANCE) -> None:
    """Equal up to a share of the largest measured value."""
    measured = np.asarray(measured, dtype=np.float64)
    difference = np.abs(np.asarray(ours, dtype=np.float64) - measured).max()
    assert difference <= tolerance * np.abs(measured).max(), f"{difference} of {np.abs(measured).max()}"


def pairs_in(archive: Any) -> Iterator[str]:
    return (name for name in ("p0", "p1", "p2") if f"{name}/prd_kps" in archive)


@pytest.mark.parametrize(("folder", "backbone"), cases("_infer.npz"))
def test_inference(folder: Path, backbone: str) -> None:
    archive = np.load(folder / f"{backbone}_infer.npz")
    network, features = described(folder, backbone)
    for name in pairs_in(archive):
        measured = {key.partition("/")[2]: archive[key] for key in archive.files if key.startswith(f"{name}/")}
        with torch.inference_mode():
            check_pair(network, *pair_of(features, measured["pair"]), measured)


def check_pair(
    network: HyperpixelNetwork,
    source: ImageFeatures,
    target: ImageFeatures,
    measured: dict[str, NDArray[Any]],
    tolerance: float = CORRELATION_TOLERANCE,
) -> None:
    gates = network.select(source, target)
    assert (gates[0].numpy() == measured["layer_sel"]).all()
    if "relevance" in measured:
        assert_close(
            network.selector(source.gate_activations, target.gate_activations)[0], measured["relevance"], tolerance
        )
    appearance = torch.cat(network.appearance(source, target, gates), dim=1)
    assert_close(appearance[0].sum(1, dtype=torch.float64), measured["app_rowsum"], tolerance)
    assert_close(appearance[0].sum(0, dtype=torch.float64), measured["app_colsum"], tolerance)
    assert_close(appearance.max(), measured["app_max"], tolerance)
    if "app_rows" in measured:
        assert_close(appearance[0][measured["rows"]], measured["app_rows"], tolerance)
    space = network.hough.space(network.hough.vote(appearance))
    assert_close(space[0], measured["hough_pre"], tolerance)
    assert_close(network.hough.smooth(space)[0], measured["hough"], tolerance)
    output = network.correlate(source, target)
    correlation = output.correlation[0]
    assert_close(correlation.sum(1, dtype=torch.float64), measured["fin_rowsum"], tolerance)
    assert_close(correlation.sum(0, dtype=torch.float64), measured["fin_colsum"], tolerance)
    assert_close(correlation.amax(1), measured["fin_rowmax"], tolerance)
    assert_close(correlation.amax(0), measured["fin_colmax"], tolerance)
    if "fin_rows" in measured:
        assert_close(correlation[measured["rows"]], measured["fin_rows"], tolerance)
        some = measured["rows"][: len(measured["mnn_rows"])]
        assert_close(mutual_filter(output.correlation)[0][some], measured["mnn_rows"], tolerance)
    check_engines(network, source, target, measured, tolerance)


def check_engines(
    network: HyperpixelNetwork,
    source: ImageFeatures,
    target: ImageFeatures,
    measured: dict[str, NDArray[Any]],
    tolerance: float = CORRELATION_TOLERANCE,
) -> None:
    count = int(measured["n_pts"])
    points, valid = torch.from_numpy(measured["src_kps"].T[:count].copy())[None], torch.ones(1, count, dtype=torch.bool)
    device = source.squared_norms.device
    wanted = cells_of_points(points, valid).to(device)
    for engine in ENGINES_UNDER_TEST[device.type]:
        found, _ = network.match(source, target, [(0, 0)], wanted, choose_engine(engine, device))
        found = found.to("cpu")
        if "fin_rowmax" in measured:
            assert_close(found.value[0], measured["fin_rowmax"], tolerance)
        assert_close(found.column_maximum[0], measured["fin_colmax"], tolerance)
        check_keypoints(found, points, measured)


def check_keypoints(found: BestCells, points: Tensor, measured: dict[str, NDArray[Any]]) -> None:
    moved = transfer(found, points, torch.ones(points.shape[:2], dtype=torch.bool))
    clear = measured["kp_gap"] > NEAR_TIE
    assert clear.any()
    difference = np.abs(moved.points[0].numpy() - measured["prd_kps"].T)[clear]
    assert difference.max() <= KEYPOINT_TOLERANCE


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("folder", "backbone"), cases("_infer.npz"))
def test_engines_on_a_gpu(folder: Path, backbone: str) -> None:
    archive = np.load(folder / f"{backbone}_infer.npz")
    network, features = described(folder, backbone)  # by the CPU: a GPU's convolutions may round more
    network = copy.deepcopy(network).cuda()
    for name in pairs_in(archive):
        measured = {key.partition("/")[2]: archive[key] for key in archive.files if key.startswith(f"{name}/")}
        with torch.inference_mode():
            source, target = (on_gpu(image) for image in pair_of(features, measured["pair"]))
            check_engines(network, source, target, measured)


def on_gpu(features: ImageFeatures) -> ImageFeatures:
    maps = tuple(m.cuda() for m in features.maps)
    rest = (features.squared_norms, features.gate_activations, features.foreground)
    return ImageFeatures(maps, *(values.cuda() for values in rest))


@pytest.mark.parametrize(("folder", "backbone"), cases("_infer.npz"))
def test_base_map_answers_when_no_gate_opens(folder: Path, backbone: str) -> None:
    archive = np.load(folder / f"{backbone}_infer.npz")
    if "base/prd_kps" not in archive:
        pytest.skip("this set has no base map")
    network = network_of(folder, backbone)
    assert isinstance(network.selector, LayerGates)
    for gate in network.selector.gates:
        torch.nn.init.zeros_(gate[3].weight)
    # The base map's numbers are of the first pair.
    measured = {key: archive[f"p0/{key}"] for key in ("pair", "src_kps", "n_pts")}
    measured |= {key.partition("/")[2]: archive[key] for key in archive.files if key.startswith("base/")}
    with torch.inference_mode():
        check_pair(network, *pair_of(network.describe(images(folder)), measured["pair"]), measured, BASE_MAP_TOLERANCE)


@pytest.mark.parametrize(("folder", "backbone"), cases("_infer.npz"))
def test_a_batch_gives_what_single_pairs_give(folder: Path, backbone: str) -> None:
    archive = np.load(folder / f"{backbone}_infer.npz")
    network, features = described(folder, backbone)
    numbers = np.stack([archive[f"{name}/pair"] for name in pairs_in(archive)])
    with torch.inference_mode():
        batch = network.correlate(features[torch.from_numpy(numbers[:, 0])], features[torch.from_numpy(numbers[:, 1])])
        for row, name in enumerate(pairs_in(archive)):
            assert (batch.selection[row].numpy() == archive[f"{name}/layer_sel"]).all()
            assert_close(batch.correlation[row].sum(1, dtype=torch.float64), archive[f"{name}/fin_rowsum"])


@pytest.mark.parametrize(("folder", "backbone"), cases("_infer_legacy_bins.npz"))
def test_legacy_bins(folder: Path, backbone: str) -> None:
    legacy = np.load(folder / f"{backbone}_infer_legacy_bins.npz")
    archive = np.load(folder / f"{backbone}_infer.npz")
    network = network_of(folder, backbone, "legacy")
    with torch.inference_mode():
        features = network.describe(images(folder))
        for name in pairs_in(legacy):
            measured = {key.partition("/")[2]: archive[key] for key in archive.files if key.startswith(f"{name}/")}
            del measured["fin_rowmax"]
            measured |= {key.partition("/")[2]: legacy[key] for key in legacy.files if key.startswith(f"{name}/")}
            source, target = pair_of(features, measured["pair"])
            appearance = torch.cat(network.appearance(source, target, network.select(source, target)), dim=1)
            space = network.hough.space(network.hough.vote(appearance))
            assert_close(space[0], measured["hough_pre"])
            assert_close(network.hough.smooth(space)[0], measured["hough"])
            output = network.correlate(source, target)
            assert_close(output.correlation[0].sum(1, dtype=torch.float64), measured["fin_rowsum"])
            assert_close(output.correlation[0].sum(0, dtype=torch.float64), measured["fin_colsum"])
            check_engines(network, source, target, measured)


# -- one training step -------------------------------------------------------------------------------------------


def our_name(published: str) -> str:
    return published.replace("reduction_ffns", "projections").replace("gumbel_ffns", "selector.gates")


def training_step(network: HyperpixelNetwork, archive: Any, folder: Path, kind: str, dtype: torch.dtype) -> Objective:
    sources, targets = archive["src_ids"].tolist(), archive["trg_ids"].tolist()
    negatives = negative_pairs([str(c) for c in archive["category_id"]]) if kind == "weak" else []
    count = len(sources)
    pairs = TrainingPairs(
        torch.tensor([*range(count), *(s for s, _ in negatives)]),
        torch.tensor([*range(count), *(t for _, t in negatives)]),
        count,
        torch.ones(count + len(negatives)),
    )
    uniform = torch.from_numpy(archive["uniform"]).permute(1, 0, 2).to(dtype)
    maps = network.extract(images(folder))
    source, target = embed_step(network, [m[sources] for m in maps], [m[targets] for m in maps], pairs)
    engine = RowBlockEngine(torch.device("cpu"), dtype)
    keypoints = keypoints_of(archive, dtype) if kind == "strong" else None
    config = SupervisionConfig(kind=kind)  # type: ignore[arg-type]
    step = Step(network, config, source, target, pairs, uniform, engine, keypoints)
    return SUPERVISIONS[config.kind].objective(step)


def keypoints_of(archive: Any, dtype: torch.dtype) -> KeypointBatch:
    counts = torch.from_numpy(archive["n_pts"])
    most = int(counts.max())
    points = [torch.from_numpy(archive[k]).permute(0, 2, 1)[:, :most].to(dtype) for k in ("src_kps", "trg_kps")]
    valid = torch.arange(most)[None] < counts[:, None]
    return KeypointBatch(*points, valid, torch.from_numpy(archive["pckthres"]).to(dtype))


STRONG = [pytest.param(*p.values, "strong", id=f"{p.id}-strong", marks=p.marks) for p in cases("_train_strong.npz")]
WEAK = [pytest.param(*p.values, "weak", id=f"{p.id}-weak", marks=p.marks) for p in cases("_train_weak.npz")]


@pytest.mark.parametrize(("folder", "backbone", "kind"), STRONG + WEAK)
def test_training_step(folder: Path, backbone: str, kind: str) -> None:
    archive = np.load(folder / f"{backbone}_train_{kind}.npz")
    network = network_of(folder, backbone).train()
    objective = training_step(network, archive, folder, kind, torch.float32)
    assert (objective.gates.numpy() == archive["layer_sel"]).all()
    assert objective.loss.item() == pytest.approx(float(archive["loss"]), rel=LOSS_TOLERANCE)
    assert objective.terms["selection_rate_term"] == pytest.approx(float(archive["loss_sel"]), rel=LOSS_TOLERANCE)
    objective.loss.backward()
    check_gradients(network, archive, "gnorm/", torch.float32)
    check_running_statistics(network, archive)
    learned = [p for p in network.parameters() if p.requires_grad]
    torch.optim.SGD(learned, lr=0.03, momentum=0.5).step()
    state = network.state_dict()
    for key in archive.files:
        if key.startswith("afternorm/"):
            ours = state[our_name(key.removeprefix("afternorm/"))].double().norm().item()
            assert ours == pytest.approx(float(archive[key]), rel=1e-5), key


@pytest.mark.parametrize(("folder", "backbone", "kind"), STRONG)
def test_strong_step_in_double_precision(folder: Path, backbone: str, kind: str) -> None:
    archive = np.load(folder / f"{backbone}_train_{kind}.npz")
    network = network_of(folder, backbone).double().train()
    objective = training_step(network, archive, folder, kind, torch.float64)
    assert objective.loss.item() == pytest.approx(float(archive["loss_f64"]), rel=1e-6)
    objective.loss.backward()
    check_gradients(network, archive, "gnorm_f64/", torch.float64)


def check_gradients(network: HyperpixelNetwork, archive: Any, prefix: str, dtype: torch.dtype) -> None:
    gradients = dict(network.named_parameters())
    ours_total, measured_total, compared = 0.0, 0.0, 0
    for key in archive.files:
        if not key.startswith(prefix):
            continue
        gradient = gradients[our_name(key.removeprefix(prefix))].grad
        ours = 0.0 if gradient is None else gradient.double().norm().item()
        measured = float(archive[key])
        assert ours == pytest.approx(measured, rel=GRADIENT_TOLERANCE[dtype], abs=1e-9), key
        ours_total, measured_total, compared = ours_total + ours**2, measured_total + measured**2, compared + 1
    assert compared > 100
    assert ours_total**0.5 == pytest.approx(measured_total**0.5, rel=TOTAL_GRADIENT_TOLERANCE)


def check_running_statistics(network: HyperpixelNetwork, archive: Any) -> None:
    state = network.state_dict()
    compared = 0
    for key in archive.files:
        if key.startswith("after/") and not key.endswith("num_batches_tracked"):
            assert_close(state[our_name(key.removeprefix("after/"))], archive[key])
            compared += 1
    assert compared > 50


@pytest.mark.parametrize(("folder", "backbone"), cases("_train_strong.npz"))
def test_keypoint_weights_follow_the_measured_verdicts(folder: Path, backbone: str) -> None:
    """Points that the published code calls wrong weigh 1, the others by their measured distance."""
    archive = np.load(folder / f"{backbone}_train_strong.npz")
    keypoints = keypoints_of(archive, torch.float32)
    points = torch.from_numpy(archive["prd_kps"]).permute(0, 2, 1)[:, : keypoints.valid.shape[1]]

    class Moved:
        valid = keypoints.valid

    Moved.points = points  # type: ignore[attr-defined]
    weights = keypoint_weights(Moved, keypoints, 0.1)  # type: ignore[arg-type]
    for pair in range(len(weights)):
        count = int(keypoints.valid[pair].sum())
        ours = weights[pair, :count]
        assert int((ours == 1).sum()) == len(archive[f"match/hard_src_{pair}"])
        distances = np.sort(archive[f"match/easy_dist_{pair}"])
        assert_close(np.sort(ours[ours < 1].numpy()), (distances / 24.0) ** 2, 1e-4)
