import numpy as np

from dhpf.planning.image_order import PairSample, Positions, order_images


def positions(*values: int) -> Positions:
    return np.array(values, dtype=np.int32)


def test_clusters_stand_together_whatever_crosses_them() -> None:
    random = np.random.default_rng(0)
    names = random.permutation(300)
    members = names.reshape(10, 30)
    inside = [(m[a], m[b]) for m in members for a in range(30) for b in range(a)]
    across = random.choice(names, size=(len(inside) // 20, 2))
    pairs = random.permutation(np.concatenate([inside, across[across[:, 0] != across[:, 1]]])).astype(np.int32)
    place = np.argsort(order_images(300, pairs[:, 0], pairs[:, 1]))
    # A cluster may take in a stray before it is known to be one; the others are ranges without a gap.
    assert sum(np.ptp(place[m]) == 29 for m in members) >= 9


def test_images_in_no_pair_come_last() -> None:
    assert order_images(6, positions(4, 2), positions(1, 4)).tolist() == [1, 4, 2, 0, 3, 5]
    assert order_images(3, positions(), positions()).tolist() == [0, 1, 2]


def test_a_sample_does_not_depend_on_the_batches() -> None:
    numbers = np.arange(10_000)
    whole, cut = PairSample(100), PairSample(100)
    whole.add(numbers, numbers.astype(np.int32), numbers.astype(np.int32) + 1)
    for begin in range(0, 10_000, 37):
        part = numbers[begin : begin + 37]
        cut.add(part, part.astype(np.int32), part.astype(np.int32) + 1)
    sources, targets = cut.pairs()
    assert len(sources) == 100
    assert sources.tolist() == whole.pairs()[0].tolist()
    assert targets.tolist() == (sources + 1).tolist()
    assert 3000 < sources.mean() < 7000


def test_a_sample_is_drawn_by_splitmix64_so_that_old_plans_come_out_again() -> None:
    def drawn(number: int) -> int:
        mixed = (number + 1) * 0x9E3779B97F4A7C15 % 2**64
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        return mixed ^ (mixed >> 31)

    assert drawn(0) == 0xE220A8397B1DCDAF
    sample = PairSample(10)
    sample.add(np.arange(1000), np.arange(1000, dtype=np.int32), np.arange(1000, dtype=np.int32))
    assert sorted(sample.pairs()[0].tolist()) == sorted(sorted(range(1000), key=drawn)[:10])


def test_a_sample_of_few_pairs_is_all_of_them() -> None:
    sample = PairSample(100)
    sample.add(np.arange(5), positions(1, 2, 3, 4, 5), positions(6, 7, 8, 9, 10))
    assert sample.pairs()[0].tolist() == [1, 2, 3, 4, 5]
    assert PairSample(1).pairs()[0].tolist() == []
