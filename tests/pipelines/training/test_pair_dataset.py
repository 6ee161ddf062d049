import dataclasses

import numpy as np
import pytest
import torch

from dhpf.pipelines.inputs.shard_set import ShardSet, joined
from dhpf.pipelines.training.pair_dataset import PairDataset, epoch_steps, gumbel_uniforms, share_of_step


@pytest.mark.parametrize(("pairs", "batch"), [(160, 8), (10, 4), (9, 4), (7, 8), (2, 2)])
def test_every_pair_is_seen_once_and_every_step_can_be_normalised(pairs: int, batch: int) -> None:
    steps = epoch_steps(pairs, batch, seed=1, epoch=0)
    assert sorted(number for step in steps for number in step) == list(range(pairs))
    assert all(len(step) >= 2 for step in steps)


def test_the_order_depends_on_seed_and_epoch() -> None:
    assert epoch_steps(64, 8, 1, 0) == epoch_steps(64, 8, 1, 0)
    assert epoch_steps(64, 8, 1, 0) != epoch_steps(64, 8, 1, 1)
    assert epoch_steps(64, 8, 1, 0) != epoch_steps(64, 8, 2, 0)


STEP, CATEGORIES = [30, 10, 20, 40, 50], ["cat", "dog", "dog", "cat", "cow"]
POSITIVE = {(30, 30), (10, 10), (20, 20), (40, 40), (50, 50)}
NEGATIVE = {(30, 10), (20, 40), (40, 50), (50, 30)}


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5, 7])
def test_workers_share_a_step_and_its_negatives(num_workers: int) -> None:
    positive, negative, noise = [], [], []
    for rank in range(num_workers):
        share = share_of_step(STEP, CATEGORIES, 100, rank, num_workers)
        sources, targets = (
            [ids[n] for n in of]
            for ids, of in ((share.sources, share.pairs.sources), (share.targets, share.pairs.targets))
        )
        pairs = list(zip(sources, targets, strict=True))
        assert len(share.noise) == len(pairs) == len(share.pairs.weights)
        if not share.pairs.weights.any():
            assert pairs == [(30, 30)], "a worker without pairs does the first one, without weight"
            continue
        assert share.pairs.weights.all()
        positive += pairs[: share.pairs.num_positive]
        negative += pairs[share.pairs.num_positive :]
        noise += share.noise
    assert sorted(positive) == sorted(POSITIVE) and sorted(negative) == sorted(NEGATIVE)
    assert sorted(noise) == sorted([*STEP, *(100 + s for s, _ in NEGATIVE)])


def test_strong_supervision_has_no_negatives() -> None:
    share = share_of_step(STEP, None, 100, 1, 2)
    assert share.sources == share.targets == share.noise == (40, 50)


def test_noise_belongs_to_the_pair() -> None:
    whole = gumbel_uniforms([3, 9, 5], num_layers=4, seed=0, epoch=2)
    assert whole.shape == (3, 4, 2)
    assert torch.equal(whole[1:2], gumbel_uniforms([9], 4, 0, 2))
    assert not torch.equal(whole, gumbel_uniforms([3, 9, 5], 4, 0, 3))
    assert whole.min() >= 0 and whole.max() < 1
    assert np.isclose(gumbel_uniforms(range(500), 4, 0, 0).mean().item(), 0.5, atol=0.02)


def test_several_shard_sets_are_learned_as_one(training_sets: tuple[ShardSet, ShardSet]) -> None:
    first, second = training_sets
    both = joined([dataclasses.replace(first, thresholds=(), digest="other"), second])
    data = PairDataset(both)
    assert len(data) == both.num_pairs == first.num_pairs + second.num_pairs
    assert both.thresholds == second.thresholds and both.name == f"{first.name} + {second.name}"
    assert len(set(both.tasks)) == len(first.tasks) + len(second.tasks)
    assert data.record(first.num_pairs).pair_id == PairDataset(second).record(0).pair_id
    assert both.digest != joined([second, dataclasses.replace(first, digest="other")]).digest
    assert joined([first]) is first
