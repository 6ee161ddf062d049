"""Normalisation over all workers, compared with torch's own batch normalisation of the whole batch."""

import torch
from torch import Tensor, nn

from dhpf.model.global_batch import ALONE, TrainingPairs, Workers, follow, global_moments, normalise


def norm_of(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width).double()
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def ours(maps: Tensor, counts: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    moments = global_moments([maps], counts, ALONE)
    follow([norm], moments)
    return normalise([maps], moments, [norm])[0]


def test_normalised_as_torch_does_it_with_gradient_and_statistics() -> None:
    maps = (torch.randn(4, 3, 5, 7, dtype=torch.float64) * 3 + 2).requires_grad_()
    norm = norm_of(3)
    expected = norm(maps).relu()
    statistics = {name: value.clone() for name, value in norm.state_dict().items()}
    variables = [maps, norm.weight, norm.bias]
    wanted = torch.autograd.grad(expected.square().sum(), variables)
    norm.reset_running_stats()
    result = ours(maps, torch.ones(4), norm)
    assert torch.allclose(result, expected)
    for got, want in zip(
        torch.autograd.grad(result.square().sum(), [maps, norm.weight, norm.bias]), wanted, strict=True
    ):
        assert torch.allclose(got, want)
    for name, value in norm.state_dict().items():
        assert torch.allclose(value, statistics[name]), name


def test_an_image_that_counts_twice_is_as_good_as_two() -> None:
    maps, norm = torch.randn(2, 3, 4, 4, dtype=torch.float64), norm_of(3)
    repeated = ours(maps[[0, 0, 1]], torch.ones(3), norm)
    statistics = norm.running_var.clone()  # type: ignore[union-attr]
    norm.reset_running_stats()
    counted = ours(maps, torch.tensor([2.0, 1.0]), norm)
    assert torch.allclose(counted, repeated[[0, 2]])
    assert torch.allclose(norm.running_var, statistics)  # type: ignore[arg-type]


def test_images_of_other_processes_count() -> None:
    whole = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    elsewhere = global_moments([whole[2:]], torch.ones(2), ALONE)
    sums = torch.cat([2 * elsewhere.mean, 2 * (elsewhere.variance + elsewhere.mean.square()), torch.tensor([2.0])])
    shared = global_moments([whole[:2]], torch.ones(2), Workers(2, lambda values: values + sums))
    alone = global_moments([whole], torch.ones(4), ALONE)
    assert torch.allclose(shared.mean, alone.mean) and torch.allclose(shared.variance, alone.variance)
    assert shared.num_values.tolist() == alone.num_values.tolist() == [36, 36]


def test_moments_of_several_layers_are_exchanged_at_once() -> None:
    calls: list[int] = []

    def add_up(values: Tensor) -> Tensor:
        calls.append(len(values))
        return values

    layers = [torch.randn(2, width, 3, 3) for width in (4, 5)]
    global_moments(layers, torch.ones(2), Workers(1, add_up))
    assert calls == [2 * 4 + 2 * 5 + 1]


def test_values_far_from_zero_keep_their_variance() -> None:
    maps = torch.randn(2, 3, 8, 8) + 1000
    moments = global_moments([maps], torch.ones(2), ALONE)
    assert torch.allclose(moments.variance, maps.double().var((0, 2, 3), correction=0).float(), rtol=1e-3)


def test_how_often_images_stand_in_pairs() -> None:
    pairs = TrainingPairs(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 2]), 2, torch.ones(3))
    assert pairs.source_counts(2).tolist() == [2, 1]
    assert pairs.target_counts(3).tolist() == [1, 1, 1]
