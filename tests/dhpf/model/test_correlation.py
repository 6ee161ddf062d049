"""The fast computations of the correlation against the plain one, which upsamples every layer and then multiplies."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dhpf.model.correlation import (
    NativeCorrelation,
    appearance_blocks,
    cosine_power,
    feature_lengths,
    features_at,
    native_products,
    products_at,
    squared_norms,
)

SIDES = (60, 30, 30, 15, 8)


def maps_of(seed: int, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3 + n, side, side, generator=generator) for n, side in enumerate(SIDES)]


def upsampled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, size=(60, 60), mode="bilinear", align_corners=True).flatten(2)


def plain_products(source: list[Tensor], target: list[Tensor], weights: Tensor) -> Tensor:
    terms = [
        weights[:, layer, None, None] * (upsampled(s).mT @ upsampled(t))
        for layer, (s, t) in enumerate(zip(source, target, strict=True))
    ]
    return torch.stack(terms).sum(0)


WEIGHTS = torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0, 1.0]])


def test_squared_norms_without_upsampling_and_their_gradient() -> None:
    sides = (60, 30, 2, 15, 30, 8)
    maps = [torch.randn(1 + n % 3, 5 + n, side, side).double().requires_grad_() for n, side in enumerate(sides)]
    weights = [torch.randn(len(m), 3600).double() for m in maps]
    expected = [upsampled(m).square().sum(1) for m in maps]
    found = squared_norms(maps)
    for ours, theirs, weight, layer in zip(found, expected, weights, maps, strict=True):
        assert torch.allclose(ours, theirs)
        gradients = [torch.autograd.grad((n * weight).sum(), layer, retain_graph=True)[0] for n in (ours, theirs)]
        assert torch.allclose(*gradients)


def test_rows_of_all_resolutions_together() -> None:
    source, target = maps_of(1), maps_of(2)
    expected = plain_products(source, target, WEIGHTS)
    with torch.no_grad():
        native = NativeCorrelation(native_products(source, target, WEIGHTS))
        ours = torch.cat([native.row_block(y) for y in range(60)], dim=1)
    assert torch.allclose(ours, expected, atol=1e-3, rtol=1e-4)


def test_some_rows_are_rows_of_the_whole() -> None:
    source, target = maps_of(1), maps_of(2)
    cells = torch.tensor([[0, 59, 3599], [1234, 61, 2000]])
    expected = plain_products(source, target, WEIGHTS)
    ours = products_at(source, target, WEIGHTS, cells)
    assert torch.allclose(ours, torch.stack([expected[b, cells[b]] for b in range(2)]), atol=1e-3, rtol=1e-4)
    one = features_at(source[1], cells)
    assert torch.allclose(one, torch.stack([upsampled(source[1])[b][:, cells[b]].T for b in range(2)]), atol=1e-5)


def test_gradients_are_those_of_the_plain_way() -> None:
    source = [m.double().requires_grad_() for m in maps_of(1, batch=1)]
    target = [m.double() for m in maps_of(2, batch=1)]
    weights = torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    cells = torch.tensor([[7, 1800]])
    products_at(source, target, weights, cells).sin().sum().backward()
    ours = [m.grad.clone() for m in source if m.grad is not None] + [weights.grad.clone()]  # type: ignore[union-attr]
    for tensor in (*source, weights):
        tensor.grad = None
    plain_products(source, target, weights)[:, cells[0]].sin().sum().backward()
    theirs = [m.grad for m in source if m.grad is not None] + [weights.grad]
    assert len(ours) == len(theirs) == 6
    for left, right in zip(ours, theirs, strict=True):
        assert right is not None
        assert torch.allclose(left, right, atol=1e-8)


def test_cosines_of_equal_features_are_almost_one() -> None:
    features = [torch.rand(1, 4, 30, 30) + 1]
    weights = torch.ones(1, 1)
    lengths = feature_lengths(squared_norms(features)[0][:, None], weights, training=False)
    native = NativeCorrelation(native_products(features, features, weights))
    appearance = torch.cat(list(appearance_blocks(native, lengths, lengths, 2)), dim=1)[0]
    assert torch.allclose(appearance.diagonal(), torch.ones(3600), atol=2e-3)
    assert appearance.max() <= 1.0


def test_negative_cosines_count_as_zero() -> None:
    ones = torch.ones(1, 3600)
    assert cosine_power(-torch.ones(1, 1, 3600), ones[:, :1], ones, 2).max() == 0


def test_a_zero_length_is_replaced_in_training_only() -> None:
    squared, weights = torch.zeros(1, 1, 4), torch.ones(1, 1)
    assert feature_lengths(squared, weights, training=False).max() == 0
    assert torch.allclose(feature_lengths(squared, weights, training=True), torch.full((1, 4), 1e-2))
