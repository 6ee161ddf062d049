import numpy as np
import pytest
import torch

from pipelines.training_data import epoch_batches, gumbel_uniforms


@pytest.mark.parametrize(("pairs", "batch", "workers"), [(160, 8, 2), (10, 4, 2), (9, 4, 2), (7, 8, 3), (4, 4, 1)])
def test_every_pair_is_seen_once_and_every_worker_can_normalise(pairs: int, batch: int, workers: int) -> None:
    steps = epoch_batches(pairs, batch, seed=1, epoch=0, num_workers=workers)
    seen = [number for step in steps for part in step for number in part]
    assert sorted(seen) == list(range(pairs))
    assert all(len(part) >= 2 for step in steps for part in step)


def test_the_order_depends_on_seed_and_epoch_and_not_on_workers() -> None:
    def order(seed: int, epoch: int, workers: int) -> list[list[int]]:
        steps = epoch_batches(64, 8, seed, epoch, workers)
        return [[number for part in step for number in part] for step in steps]

    assert order(1, 0, 1) == order(1, 0, 2) == order(1, 0, 4)
    assert order(1, 0, 1) != order(1, 1, 1)
    assert order(1, 0, 1) != order(2, 0, 1)


def test_noise_belongs_to_the_pair() -> None:
    whole = gumbel_uniforms([3, 9, 5], num_layers=4, seed=0, epoch=2)
    assert whole.shape == (3, 4, 2)
    assert torch.equal(whole[1:2], gumbel_uniforms([9], 4, 0, 2))
    assert not torch.equal(whole, gumbel_uniforms([3, 9, 5], 4, 0, 3))
    assert whole.min() >= 0 and whole.max() < 1
    assert np.isclose(gumbel_uniforms(range(500), 4, 0, 0).mean().item(), 0.5, atol=0.02)
