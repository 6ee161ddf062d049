from __future__ import annotations

import random

from dhpf.pipelines.gallery.choice import Overview, Sample, Smallest
from dhpf.pipelines.outputs.tables import MATCHED, layer_mask


def test_the_smallest_keys_are_kept() -> None:
    kept = Smallest(3)
    for number, key in enumerate([5.0, 1.0, 4.0, 1.0, 9.0, 0.5]):
        kept.add(key, number)
    assert kept.numbers() == [5, 1, 3]


def test_a_sample_has_the_worst_the_best_and_some_at_random() -> None:
    sample = Sample(30)
    for number in range(1000):
        sample.add(number, number / 1000)
    chosen = sample.numbers(30)
    assert len(chosen) == 30
    assert {0, 1, 2, 3, 997, 998, 999} <= chosen
    assert len([number for number in chosen if 20 < number < 980]) >= 8
    assert sample.numbers(9) < chosen


def row(number: int, status: str = MATCHED, category: str = "cats") -> dict[str, object]:
    return {"number": number, "status": status, "category": category, "layers": layer_mask([1, 40])}


def test_all_pairs_are_shown_where_there_are_few() -> None:
    overview = Overview(10, 3)
    for number in range(6):
        overview.add(row(number), 0.1 * number)
    overview.add(row(6, "broken"), None)
    overview.add(row(7), float("nan"))
    assert overview.listed() == set(range(8))
    assert len(overview.pictured()) == 3 and overview.pictured() <= set(range(6))


def test_of_many_pairs_as_many_are_shown_as_the_limit_and_failed_ones_do_not_crowd_out_the_others() -> None:
    overview = Overview(100, 30)
    numbers = list(range(3000))
    random.Random(0).shuffle(numbers)
    for number in numbers:
        overview.add(row(number, "broken" if number < 1000 else MATCHED), None if number < 1000 else number / 3000)
    listed = overview.listed()
    assert len(listed) == 100
    assert len([number for number in listed if number < 1000]) == 25
    assert {1000, 1001, 2998, 2999} <= listed
    assert overview.pictured() <= listed


def test_counts_are_over_all_pairs() -> None:
    overview = Overview(2, 1)
    for number in range(40):
        overview.add(row(number, category="cats" if number < 30 else "dogs"), number / 39)
    overview.add(row(40, "broken"), None)
    assert overview.num_pairs == 41 and overview.statuses == {MATCHED: 40, "broken": 1}
    assert overview.by_category["cats"].num_pairs == 30 and overview.by_category["dogs"].uses == {1: 10, 40: 10}
    assert sum(overview.histogram) == 40 and overview.histogram[0] == 2 and overview.histogram[-1] == 2
