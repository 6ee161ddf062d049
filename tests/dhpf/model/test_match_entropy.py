"""The weak loss, which is computed strip by strip, compared with one computed from whole matrices."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dhpf.model.correlation import NativeCorrelation, appearance_blocks, native_products
from dhpf.model.hough import HoughVoting
from dhpf.model.match_entropy import PairFeatures, match_entropy, read_positions
from dhpf.model.transfer import mutual_filter

SIDES = (60, 15, 8)


def entropy_of_whole(correlation: Tensor) -> Tensor:
    """Mean entropy of whole (B, N, N) correlations, both directions."""
    filtered = mutual_filter(correlation)
    halves = []
    for matrix in (filtered, filtered.mT):
        maps = matrix.reshape(*matrix.shape[:2], 60, 60)
        squeezed = F.interpolate(maps, (15, 15), mode="bilinear", align_corners=True).flatten(2)
        total = squeezed.sum(dim=2, keepdim=True)
        share = squeezed / torch.where(total == 0, torch.ones_like(total), total)
        share = torch.where(share == 0, torch.full_like(share, 1e-30), share)
        halves.append(-(share * share.log2()).sum(dim=2).mean())
    return (halves[0] + halves[1]) / 2


def drawn(seed: int) -> tuple[list[Tensor], Tensor]:
    """Random non-negative maps, as projections give them, and random lengths; gradients go to both."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(3, s, s, dtype=torch.float64, generator=generator).relu() for s in SIDES]
    lengths = torch.rand(3600, dtype=torch.float64, generator=generator) + 1
    return [m.requires_grad_() for m in maps], lengths.requires_grad_()


@pytest.mark.parametrize(("exponent", "votes"), [(2, "plain"), (3, "foreground")])
def test_value_and_gradient_are_those_of_the_whole_matrix(exponent: int, votes: str) -> None:
    hough = HoughVoting("current").double()
    (source, source_lengths), (target, target_lengths) = drawn(1), drawn(2)
    weights = torch.tensor([1.0, 0.25, 1.0], dtype=torch.float64, requires_grad=True)
    variables = [*source, *target, source_lengths, target_lengths, weights]
    products = native_products([m[None] for m in source], [m[None] for m in target], weights[None])
    blocks = list(appearance_blocks(NativeCorrelation(products), source_lengths[None], target_lengths[None], exponent))
    appearance = torch.cat(blocks, dim=1)
    generator = torch.Generator().manual_seed(3)
    foreground = torch.rand(2, 3600 if votes == "foreground" else 0, dtype=torch.float64, generator=generator)
    counted = appearance.detach()
    if votes == "foreground":
        counted = counted * foreground[0][:, None] * foreground[1]
    scores = hough.scores(hough.vote(counted))
    rows = torch.cat([hough.score_row(scores, y) for y in range(60)], dim=1)
    expected = entropy_of_whole(appearance * rows)
    wanted = torch.autograd.grad(expected, variables)

    left = PairFeatures(tuple(source), source_lengths, foreground[0])
    right = PairFeatures(tuple(target), target_lengths, foreground[1])
    ours = match_entropy(left, right, weights, exponent, hough)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-9)
    for got, want in zip(torch.autograd.grad(3 * ours, variables), wanted, strict=True):
        assert torch.allclose(got, 3 * want, rtol=1e-6, atol=1e-9 * float(want.abs().max()))


def test_images_without_features_are_wholly_undecided_nowhere() -> None:
    """All correlations 0: shares become 1e-30, whose entropy is almost 0, and nothing is NaN."""
    nothing = PairFeatures((torch.zeros(2, 15, 15),), torch.ones(3600), torch.ones(0))
    value = match_entropy(nothing, nothing, torch.ones(1), 2, HoughVoting("current"))
    assert math.isfinite(value) and abs(value) < 1e-20


def test_positions_that_the_squeezing_reads() -> None:
    read = list(read_positions())
    assert len(read) == 28 and read[:3] == [0, 4, 5] and read[-1] == 59
