"""The GPU engine against whole matrices on small grids, interpreted by Triton where there is no GPU; and on a GPU, at
full size, against the engine in torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.model.correlation import cosine_power
from dhpf.model.engines import triton_engine
from dhpf.model.engines.engine import BestCells, MatchProblem, best_cells
from dhpf.model.engines.row_blocks import RowBlockEngine
from dhpf.model.engines.triton_engine import TritonEngine, bytes_per_pair
from dhpf.model.hough import HoughVoting
from dhpf.model.usable_cells import UsableCells

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAIRS = [(0, 1), (2, 0)]


class HalvedVotes(HoughVoting):
    """Stands in for Hough voting, whose bins exist for the 60 x 60 grid alone: small grids take any scores."""

    def scores(self, votes: Tensor) -> Tensor:
        return votes / 2


@dataclass(frozen=True)
class Example:
    """Random images on a small grid.

    Attributes:
        layers: (channels, side) of each layer.
        selected: the layers of each of the PAIRS.
    """

    grid_side: int
    layers: tuple[tuple[int, int], ...]
    selected: tuple[tuple[int, ...], ...]
    exponent: int


EXAMPLES = {
    "every side": Example(8, ((3, 8), (20, 8), (5, 5), (17, 3), (7, 3)), ((0, 1, 2, 3, 4), (1, 4)), 2),
    "grid side alone": Example(7, ((3, 7), (40, 7)), ((0, 1), (1,)), 3),
    "coarse alone": Example(8, ((4, 7), (5, 6), (18, 4)), ((0, 1, 2), (2,)), 1),
}


def drawn_problem(example: Example) -> MatchProblem:
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, channels, side, side) for channels, side in example.layers]
    source, target = ([torch.randn(size, generator=generator) for size in sizes] for _ in range(2))
    selected = torch.zeros(len(PAIRS), len(sizes), dtype=torch.bool)
    for row, layers in zip(selected, example.selected, strict=True):
        row[list(layers)] = True
    sources, targets = torch.tensor(PAIRS).T
    return MatchProblem(
        tuple(m.to(DEVICE) for m in source),
        tuple(m.to(DEVICE) for m in target),
        PAIRS,
        selected.to(DEVICE),
        lengths(source, sources, selected, example.grid_side).to(DEVICE),
        lengths(target, targets, selected, example.grid_side).to(DEVICE),
        torch.rand(len(PAIRS), example.grid_side**2, generator=generator).to(DEVICE),
        torch.rand(len(PAIRS), example.grid_side**2, generator=generator).to(DEVICE),
        example.exponent,
        HalvedVotes("current").to(DEVICE),
        (torch.rand(len(PAIRS), example.grid_side**2, generator=generator) < 0.1).to(DEVICE),
        "soft",
    )


def upsampled(layer: Tensor, grid_side: int) -> Tensor:
    return F.interpolate(layer, size=(grid_side, grid_side), mode="bilinear", align_corners=True).flatten(2)


def lengths(maps: list[Tensor], images: Tensor, selected: Tensor, grid_side: int) -> Tensor:
    squares = torch.stack([upsampled(m, grid_side).square().sum(dim=1) for m in maps], dim=1)[images]
    return (squares * selected[..., None]).sum(dim=1).sqrt()


def whole_appearance(problem: MatchProblem, grid_side: int) -> Tensor:
    """(B, N, N) appearance, computed on the CPU by upsampling every layer first."""
    sources, targets = torch.tensor(PAIRS).T
    products = torch.zeros(len(PAIRS), grid_side**2, grid_side**2)
    for layer, weight in enumerate(problem.selected.cpu().T.float()):
        left = upsampled(problem.source_maps[layer].cpu(), grid_side)
        right = upsampled(problem.target_maps[layer].cpu(), grid_side)
        products += weight[:, None, None] * (left[sources].mT @ right[targets])
    return cosine_power(products, problem.source_lengths.cpu(), problem.target_lengths.cpu(), problem.exponent)


def displacement_index(side: int) -> Tensor:
    """(N, N) index of each match's displacement among the (2 side - 1)^2 that there are."""
    axis = torch.arange(side)
    shift = axis[None, :] - axis[:, None] + side - 1
    return (shift[:, None, :, None] * (2 * side - 1) + shift[None, :, None, :]).reshape(side**2, side**2)


def expected_of(problem: MatchProblem, grid_side: int) -> BestCells:
    appearance = whole_appearance(problem, grid_side)
    if problem.usable is not None:
        appearance = appearance * (problem.usable.source.cpu()[:, :, None] & problem.usable.target.cpu()[:, None, :])
    index, displacements = displacement_index(grid_side), 2 * grid_side - 1
    counted = appearance * problem.source_votes.cpu()[:, :, None] * problem.target_votes.cpu()[:, None, :]
    votes = torch.zeros(len(PAIRS), displacements**2).index_add_(1, index.flatten(), counted.flatten(1))
    scores = problem.hough.scores(votes)
    correlation = appearance * scores[:, index]
    return best_cells(correlation, scores.view(-1, displacements, displacements), problem.wanted.cpu(), problem.readout)


def assert_same(found: BestCells, expected: BestCells) -> None:
    for name in ("value", "column_maximum", "filtered_value", "geometric_scores"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), name
    for name in ("target", "filtered_target"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert (found.points - expected.points).abs().max() <= 1e-3


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_it_finds_what_stands_in_the_whole_matrix(example: Example) -> None:
    problem = drawn_problem(example)
    found = TritonEngine(grid_side=example.grid_side)(problem).to("cpu")
    assert found.target.dtype == torch.long
    assert_same(found, expected_of(problem, example.grid_side))


def test_cells_that_are_not_usable_neither_match_nor_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES["every side"]
    problem = drawn_problem(example)
    generator = torch.Generator().manual_seed(1)
    cells = (torch.rand(2, *problem.source_votes.shape, generator=generator) < 0.8).to(DEVICE)
    usable = UsableCells(cells[0], cells[1])
    source_votes, target_votes = usable.votes(problem.source_votes, problem.target_votes)
    problem = replace(problem, usable=usable, source_votes=source_votes, target_votes=target_votes)
    expected = expected_of(problem, example.grid_side)
    assert expected.value[~usable.source.cpu()].max() == 0
    assert_same(TritonEngine(grid_side=example.grid_side)(problem).to("cpu"), expected)
    monkeypatch.setattr(triton_engine, "WORKSPACE_BYTES", 1)
    assert_same(TritonEngine(grid_side=example.grid_side)(problem).to("cpu"), expected)


def test_a_batch_is_its_pairs_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES["every side"]
    problem = drawn_problem(example)
    together = TritonEngine(grid_side=example.grid_side)(problem)
    monkeypatch.setattr(triton_engine, "WORKSPACE_BYTES", 1)
    alone = TritonEngine(grid_side=example.grid_side)(problem)
    for field in fields(BestCells):
        assert torch.equal(getattr(alone, field.name), getattr(together, field.name)), field.name


def test_the_first_of_equal_targets_is_taken() -> None:
    problem = drawn_problem(EXAMPLES["grid side alone"])
    same = tuple(torch.ones_like(m) for m in problem.source_maps)
    length = problem.selected.new_full(problem.source_lengths.shape, 2, dtype=torch.float32)
    wanted = torch.ones_like(problem.wanted)

    class Ones(HalvedVotes):
        def scores(self, votes: Tensor) -> Tensor:
            return torch.ones_like(votes)

    tied = replace(
        problem,
        source_maps=same,
        target_maps=same,
        source_lengths=length,
        target_lengths=length,
        wanted=wanted,
        hough=Ones("current"),
    )
    found = TritonEngine(grid_side=7)(tied)
    assert found.value.min() > 0
    assert found.target.abs().max() == 0
    assert found.filtered_target.abs().max() == 0


def test_a_featureless_pair_matches_nothing() -> None:
    problem = drawn_problem(EXAMPLES["grid side alone"])
    blank = tuple(torch.zeros_like(m) for m in problem.source_maps)
    length = torch.zeros_like(problem.source_lengths)
    empty = replace(problem, source_maps=blank, target_maps=blank, source_lengths=length, target_lengths=length)
    found = TritonEngine(grid_side=7)(replace(empty, wanted=torch.ones_like(problem.wanted)))
    assert found.value.abs().max() == found.column_maximum.abs().max() == found.filtered_value.abs().max() == 0
    assert found.filtered_target.abs().max() == found.target.abs().max() == 0


def test_a_pair_takes_little_beside_its_matrix() -> None:
    assert bytes_per_pair({60, 30, 15, 8}, 60) < 1.5 * 4 * 3600 * 3600


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(projection_divisor=2),
        ModelConfig(selection="all", exponent=3),
        ModelConfig(selection="fixed", layers=(5, 11, 16), hough_bins="legacy"),
        ModelConfig(selection="fixed", layers=(4, 11), image_side=400),
        ModelConfig(selection="fixed", layers=(3, 11), readout="soft", votes="foreground", features="signed-sqrt"),
    ],
    ids=["dynamic", "every side", "coarse alone", "another side", "levers"],
)
@torch.inference_mode()
def test_on_a_gpu_it_finds_what_the_engine_in_torch_finds(config: ModelConfig) -> None:
    import skimage.data

    from dhpf.frame import to_square

    torch.manual_seed(3)
    network = build_network(config).cuda()
    images = [skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee()]
    features = network.describe(torch.stack([to_square(image, config.image_side) for image in images]).cuda())
    pairs = [(0, 1), (1, 2), (2, 2), (2, 0)]
    wanted = (torch.rand(len(pairs), 3600, generator=torch.Generator().manual_seed(0)) < 0.05).cuda()
    found, selection = network.match(features, features, pairs, wanted, TritonEngine())
    expected, same_selection = network.match(features, features, pairs, wanted, RowBlockEngine(torch.device("cuda")))
    assert torch.equal(selection, same_selection)
    for name in ("value", "column_maximum", "geometric_scores"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), name
    for name in ("target", "filtered_target"):  # where two targets are as good as each other, either is right
        assert (getattr(found, name) != getattr(expected, name)).float().mean() < 1e-3, name
    again, _ = network.match(features, features, pairs[:1], wanted[:1], TritonEngine())
    for field in fields(BestCells):
        assert torch.equal(getattr(again, field.name)[0], getattr(found, field.name)[0]), field.name
