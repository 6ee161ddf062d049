"""Every engine against the whole matrices of `correlate`, on real photos."""

from dataclasses import fields, replace

import pytest
import skimage.data
import torch
from torch import Tensor

from dhpf.checkpoint import build_network
from dhpf.config import EngineName, ModelConfig
from dhpf.frame import to_square
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.engine import BestCells, best_cells
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.usable_cells import UsableCells

NAMES: tuple[EngineName, ...] = ("torch", "compiled")
CONFIGS = {
    "dynamic": ModelConfig(projection_divisor=2),
    "every side": ModelConfig(selection="all"),
    "grid side alone": ModelConfig(selection="fixed", layers=(2, 3), exponent=2),
    "coarse alone": ModelConfig(selection="fixed", layers=(5, 11, 16), exponent=3),
    "another side": ModelConfig(selection="fixed", layers=(4, 11), image_side=400, exponent=5),
    "levers": ModelConfig(
        selection="fixed", layers=(3, 5, 11), readout="soft", votes="foreground", features="signed-sqrt"
    ),
    "legacy bins": ModelConfig(selection="fixed", layers=(3, 11), exponent=1, hough_bins="legacy"),
}
PAIRS = [(0, 1), (1, 2), (2, 2), (2, 0)]


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def network(request: pytest.FixtureRequest) -> HyperpixelNetwork:
    torch.manual_seed(3)
    return build_network(request.param)


def photos(side: int) -> Tensor:
    images = [skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee()]
    return torch.stack([to_square(image, side) for image in images])


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_finds_what_stands_in_the_matrix(network: HyperpixelNetwork, name: EngineName) -> None:
    features = network.describe(photos(network.config.image_side))
    wanted = torch.rand(len(PAIRS), 3600, generator=torch.Generator().manual_seed(0)) < 0.05
    found, selection = network.match(features, features, PAIRS, wanted, choose_engine(name))
    sources, targets = torch.tensor(PAIRS).T
    whole = network.correlate(features[sources], features[targets])
    assert torch.equal(selection, whole.selection)
    expected = best_cells(whole.correlation, whole.geometric_scores, wanted, network.config.readout)
    assert_same(found, expected, whole.correlation)


def inner_cells() -> Tensor:
    """(3, 3600) usable cells of the photos: a box of the first, all of the second, every cell but one of the third."""
    cells = torch.ones(3, 60, 60, dtype=torch.bool)
    cells[0, :9] = cells[0, 50:] = cells[0, :, :4] = cells[0, :, 45:] = False
    cells[2, 30, 30] = False
    return cells.flatten(1)


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_cells_that_are_not_usable_neither_match_nor_vote(name: EngineName) -> None:
    """A pair beside it that is matched whole is as it is alone."""
    config = CONFIGS["levers"]
    network = build_network(replace(config, readout="cell"))
    features, cells, pairs = network.describe(photos(240)), inner_cells(), [(0, 2), (1, 1)]
    wanted = torch.ones(2, 3600, dtype=torch.bool)
    usable = UsableCells.of_images(cells, pairs)
    found, _ = network.match(features, features, pairs, wanted, choose_engine(name), usable)
    assert found.value[0, ~cells[0]].max() == found.filtered_value[0, ~cells[0]].max() == 0
    assert found.column_maximum[0, ~cells[2]].max() == 0 and found.value[0, cells[0]].min() > 0
    assert cells[2][found.target[0, cells[0]]].all() and cells[2][found.filtered_target[0, cells[0]]].all()
    whole = network.correlate(features[torch.tensor([0, 1])], features[torch.tensor([2, 1])], usable)
    assert whole.correlation[0, ~cells[0]].max() == whole.correlation[0][:, ~cells[2]].max() == 0
    assert_same(found, best_cells(whole.correlation, whole.geometric_scores, wanted), whole.correlation)
    alone, _ = network.match(features, features, pairs[1:], wanted[1:], choose_engine(name))
    for field in fields(BestCells):
        assert torch.equal(getattr(found, field.name)[1], getattr(alone, field.name)[0]), field.name


def assert_same(found: BestCells, expected: BestCells, correlation: Tensor) -> None:
    for name in ("value", "column_maximum", "geometric_scores"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), name
    # Where two targets are as good as each other, either is right.
    for name in ("target", "filtered_target"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        differ = ours != theirs
        assert differ.float().mean() < 1e-3, name
        if name == "target":
            values = correlation.gather(2, ours[..., None])[..., 0]
            assert (values - expected.value).abs().max() <= 1e-5 * expected.value.max()
    apart = (found.points - expected.points).abs().amax(dim=2)
    assert (apart > 1e-3).float().mean() < 1e-3


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_pairs_one_by_one(name: EngineName) -> None:
    torch.manual_seed(3)
    network = build_network(ModelConfig(projection_divisor=2))
    features = network.describe(photos(240))
    wanted = torch.rand(len(PAIRS), 3600) < 0.05
    together, selection = network.match(features, features, PAIRS, wanted, choose_engine(name))
    assert len(selection.unique(dim=0)) > 1, "pairs of this test should differ in their layers"
    for number, pair in reversed(list(enumerate(PAIRS))):
        alone, _ = network.match(features, features, [pair], wanted[number : number + 1], choose_engine(name))
        for field in (
            "target",
            "value",
            "column_maximum",
            "filtered_target",
            "filtered_value",
            "points",
            "geometric_scores",
        ):
            assert torch.equal(getattr(alone, field)[0], getattr(together, field)[number]), field


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_a_featureless_pair_matches_nothing(name: EngineName) -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(3, 11)))
    features = network.describe(photos(240))
    blank = replace(
        features,
        maps=tuple(torch.zeros_like(m) for m in features.maps),
        squared_norms=torch.zeros_like(features.squared_norms),
    )
    found, _ = network.match(blank, blank, [(0, 1)], torch.ones(1, 3600, dtype=torch.bool), choose_engine(name))
    assert found.value.abs().max() == 0
    assert found.filtered_target.abs().max() == 0
