"""Joint matching, on correlations that are given by hand and on photos that are moved by known amounts."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

import dhpf.model.joint
from dhpf.checkpoint import build_network
from dhpf.config import JointSide, ModelConfig
from dhpf.frame import NUM_CELLS, cell_centres, to_square
from dhpf.model.features import ImageFeatures
from dhpf.model.joint import JointMatching
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.usable_cells import UsableCells

CELL = 30 * 60 + 30


def shift_of(dy: int, dx: int) -> Tensor:
    """(N,) the target cell of each source cell when all move by (dy, dx) cells, clamped to the grid."""
    y, x = torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij")
    return ((y + dy).clamp(0, 59) * 60 + (x + dx).clamp(0, 59)).flatten()


@dataclass
class GivenCorrelations:
    """Takes the place of a network: for a pair of `numbered_images` it gives a correlation with one match per cell.

    Attributes:
        targets: the target cell of each source cell, by the pair's image numbers.
        asked: the pairs that were correlated, in order.
    """

    targets: dict[tuple[int, int], Tensor]
    asked: list[tuple[int, int]] = field(default_factory=list)

    def correlate(self, source: ImageFeatures, target: ImageFeatures, usable: None = None) -> SimpleNamespace:
        pair = int(source.squared_norms[0, 0, 0]), int(target.squared_norms[0, 0, 0])
        self.asked.append(pair)
        correlation = torch.full((1, NUM_CELLS, NUM_CELLS), 1e-3)
        correlation[0, torch.arange(NUM_CELLS), self.targets[pair]] = 1
        return SimpleNamespace(correlation=correlation)


def numbered_images(looks: list[list[float]]) -> ImageFeatures:
    """Features of one image for each of `looks`, which is its map; the norms hold the image's number."""
    numbers = torch.arange(len(looks)).float().view(-1, 1, 1).expand(-1, 1, NUM_CELLS)
    maps = torch.tensor(looks)[:, :, None, None].expand(-1, -1, 2, 2)
    return ImageFeatures((maps,), numbers, torch.zeros(len(looks), 1, 0), torch.zeros(len(looks), 0))


def scripted(
    targets: dict[tuple[int, int], Tensor], limit: int, looks: list[list[float]] | None = None
) -> JointMatching:
    num_images = 1 + max(n for pair in targets for n in pair)
    network = cast(HyperpixelNetwork, GivenCorrelations(targets))
    return JointMatching(network, numbered_images(looks or [[1.0]] * num_images), ["cat"] * num_images, limit)


def with_an_outlier() -> dict[tuple[int, int], Tensor]:
    """Shifts between images that agree with each other, except for one cell's direct match from image 0 to image 1."""
    direct = shift_of(3, 2)
    direct[CELL] = 0
    return {
        (0, 1): direct,
        (0, 2): shift_of(1, 1),
        (1, 2): shift_of(-2, -1),
        (0, 3): shift_of(4, 4),
        (1, 3): shift_of(1, 2),
    }


def test_two_paths_that_agree_outvote_the_direct_one() -> None:
    joint = scripted(with_an_outlier(), limit=2).match(0, 1)
    centre = cell_centres()[CELL]
    assert torch.allclose(joint.points[CELL], centre + torch.tensor([8.0, 12.0]), atol=0.5)
    assert 0.6 < joint.agreement[CELL] < 0.7  # two of three paths
    elsewhere = 20 * 60 + 20
    assert torch.allclose(joint.points[elsewhere], cell_centres()[elsewhere] + torch.tensor([8.0, 12.0]), atol=0.5)
    assert joint.agreement[elsewhere] > 0.95


def test_alone_the_direct_path_is_what_there_is() -> None:
    alone = JointMatching(
        cast(HyperpixelNetwork, GivenCorrelations(with_an_outlier())), numbered_images([[1.0]] * 4), list("abcd"), 2
    )
    joint = alone.match(0, 1)
    assert joint.points[CELL].norm() < 1
    assert joint.agreement[CELL] > 0.95


def test_intermediates_are_of_the_pairs_kind_and_look_most_like_both() -> None:
    looks = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.1], [0.9, 1.0], [1.0, 1.0]]
    kinds = ["cat", "cat", "cat", "cat", "cat", "dog"]
    network = cast(HyperpixelNetwork, GivenCorrelations({}))
    assert JointMatching(network, numbered_images(looks), kinds, 2).intermediates(0, 1) == [2, 4]
    assert JointMatching(network, numbered_images(looks), kinds, 9).intermediates(0, 1) == [2, 3, 4]
    assert JointMatching(network, numbered_images(looks), kinds, 9).intermediates(0, 5) == []


def test_two_images_are_correlated_once_whatever_paths_they_are_on() -> None:
    targets = {(a, b): shift_of(b - a, 0) for a in range(3) for b in range(3) if a != b}
    network = GivenCorrelations(targets)
    joint = JointMatching(cast(HyperpixelNetwork, network), numbered_images([[1.0]] * 3), ["cat"] * 3, 8)
    for source, target in targets:
        middle = joint.match(source, target).points[CELL] - cell_centres()[CELL]
        assert torch.allclose(middle, torch.tensor([0.0, 4.0 * (target - source)]), atol=0.5)
    assert sorted(network.asked) == [(0, 1), (0, 2), (1, 2)]


def test_of_more_pairs_than_are_kept_the_last_used_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhpf.model.joint, "KEPT_PAIRS", 2)
    network = GivenCorrelations({(a, b): shift_of(b - a, 0) for a in range(3) for b in range(3) if a != b})
    joint = JointMatching(cast(HyperpixelNetwork, network), numbered_images([[1.0]] * 3), list("abc"), 8)
    for pair in ((0, 1), (0, 2), (1, 0), (1, 2), (0, 1), (2, 0)):
        found = joint.match(*pair).points[CELL] - cell_centres()[CELL]
        assert torch.allclose(found, torch.tensor([0.0, 4.0 * (pair[1] - pair[0])]), atol=0.5)
    assert network.asked == [(0, 1), (0, 2), (1, 2), (0, 2)]


def test_a_cell_that_nothing_matches_has_no_agreement_and_a_finite_point() -> None:
    class Blank(GivenCorrelations):
        def correlate(self, source: ImageFeatures, target: ImageFeatures, usable: None = None) -> SimpleNamespace:
            return SimpleNamespace(correlation=torch.zeros(1, NUM_CELLS, NUM_CELLS))

    joint = JointMatching(cast(HyperpixelNetwork, Blank({})), numbered_images([[1.0]] * 3), ["cat"] * 3, 8).match(0, 1)
    assert joint.agreement.max() == 0
    assert torch.isfinite(joint.points).all()


def test_paths_begin_and_end_in_usable_cells_alone() -> None:
    usable = UsableCells(torch.ones(1, NUM_CELLS, dtype=torch.bool), torch.ones(1, NUM_CELLS, dtype=torch.bool))
    usable.source[0, 5] = usable.target[0, shift_of(3, 2)[CELL]] = False
    whole, part = scripted(with_an_outlier(), limit=2).match(0, 1), scripted(with_an_outlier(), 2).match(0, 1, usable)
    assert whole.agreement[5] > 0 and part.agreement[5] == 0
    assert part.points[CELL].norm() < 1 and part.agreement[CELL] < 0.4, "the direct path is left"
    elsewhere = 20 * 60 + 20
    assert torch.equal(part.points[elsewhere], whole.points[elsewhere])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_what_a_cpu_finds() -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(5, 11)))
    photos = [skimage.data.chelsea(), skimage.data.chelsea()[:, ::-1], skimage.data.chelsea()[20:, 30:]]
    features = network.describe(torch.stack([to_square(np.ascontiguousarray(photo), 240) for photo in photos]))
    expected = JointMatching(network, features, ["cat"] * 3, 1).match(0, 1)
    network.cuda()
    rest = (features.squared_norms, features.gate_activations, features.foreground)
    on_gpu = ImageFeatures(tuple(m.cuda() for m in features.maps), *(values.cuda() for values in rest))
    found = JointMatching(network, on_gpu, ["cat"] * 3, 1).match(0, 1)
    assert found.points.is_cuda
    moved = (found.to("cpu").points - expected.points).norm(dim=1)
    assert (moved > 0.05).float().mean() < 1e-2  # where two targets are as good as each other, either is right
    assert (found.to("cpu").agreement - expected.agreement).abs().median() < 1e-3


@pytest.mark.parametrize(("half", "side"), [(False, 60), (True, 60), (True, 30)])
def test_a_photo_moved_twice_is_found_where_it_was_moved_to(half: bool, side: JointSide) -> None:
    network = build_network(ModelConfig(selection="fixed", layers=(5, 11)))
    photo = np.pad(skimage.data.chelsea()[:240, :320], ((64, 64), (64, 64), (0, 0)), mode="reflect")
    windows = [photo[y : y + 300, x : x + 360] for y, x in ((40, 40), (40, 70), (70, 40))]
    features = network.describe(torch.stack([to_square(window, 240) for window in windows]))
    features = features.in_half_precision() if half else features
    joint = JointMatching(network, features, ["cat"] * 3, 1, side).match(0, 1)
    inside = ((cell_centres() >= 60) & (cell_centres() <= 180)).all(dim=1)
    moved = (joint.points - cell_centres())[inside]
    # 30 of 360 columns to the left are 20 pixels of the frame.
    assert (moved - torch.tensor([-20.0, 0.0])).norm(dim=1).median() < 3
    assert joint.agreement[inside].median() > 0.5
