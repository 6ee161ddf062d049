import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dhpf.errors import InputError
from dhpf.planning.blocks import (
    LARGEST_BLOCK,
    SMALLEST_BLOCK,
    WANTED_BLOCKS,
    BlockLimits,
    PlannedBlock,
    block_limits,
    images_within,
    pair_positions,
    pairs_of_a_block,
    plan_blocks,
    plan_spans,
    planned_block_from_json,
)
from dhpf.planning.plan_summary import num_degrees
from dhpf.planning.spans import Span, band, triangle
from dhpf.records import PairRecord


def pairs(*names: str) -> list[PairRecord]:
    return [PairRecord(f"{n}", "", name[0], name[1]) for n, name in enumerate(names)]


def test_every_pair_is_in_one_block_and_every_image_once_in_each() -> None:
    listed = pairs("ab", "ac", "bc", "de", "da", "ef")
    blocks = list(plan_blocks(listed, max_pairs=10, max_images=3))
    assert [pair for block in blocks for pair in block.pairs] == listed
    assert [block.images for block in blocks] == [("a", "b", "c"), ("d", "e", "a"), ("e", "f")]
    assert [block.block_id for block in blocks] == ["block-000000", "block-000001", "block-000002"]


def test_a_block_holds_so_many_pairs() -> None:
    blocks = list(plan_blocks(pairs("ab", "ab", "ab"), max_pairs=2, max_images=9))
    assert [len(block.pairs) for block in blocks] == [2, 1]


def test_no_pairs_no_blocks() -> None:
    assert list(plan_blocks([], max_pairs=2, max_images=2)) == []


def test_a_pair_of_an_image_with_itself_is_one_image() -> None:
    assert next(plan_blocks(pairs("aa"), max_pairs=1, max_images=2)).images == ("a",)


def test_memory_holds_one_block() -> None:
    """The planner reads at most one pair more than it has given out, so that any number of pairs can stream through."""
    taken = 0

    def counted() -> Iterator[PairRecord]:
        nonlocal taken
        for pair in pairs(*["ab"] * 1000):
            taken += 1
            yield pair

    blocks = plan_blocks(counted(), max_pairs=10, max_images=2)
    for number in range(1, 6):
        assert len(next(blocks).pairs) == 10
        assert taken == 10 * number + 1


@pytest.mark.parametrize(("max_pairs", "max_images"), [(0, 9), (-1, 9), (9, 1)])
def test_limits_that_no_pair_can_keep(max_pairs: int, max_images: int) -> None:
    with pytest.raises(InputError, match="must be at least"):
        next(plan_blocks(pairs("ab"), max_pairs=max_pairs, max_images=max_images))


def planned(*spans: Span | None, max_images: int, max_pairs: int = 10**9) -> list[PlannedBlock]:
    return list(plan_spans([s for s in spans if s], max_images=max_images, max_pairs=max_pairs))


def listed(block: PlannedBlock) -> list[tuple[int, int]]:
    return [pair for span in block.spans for pair in span]


def images_of(block: PlannedBlock) -> set[int]:
    return {position for pair in listed(block) for position in pair}


def test_all_pairs_of_six_images_in_blocks_of_four() -> None:
    blocks = planned(triangle(0, 6), max_images=4)
    assert [images_of(block) for block in blocks] == [{0, 1, 2, 3}, {0, 1, 4, 5}, {2, 3, 4, 5}]
    assert listed(blocks[0]) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert [block.first_pair for block in blocks] == [0, 6, 10]
    assert [block.num_shared for block in blocks] == [0, 2, 2]
    assert [block.block_id for block in blocks] == ["block-000000", "block-000001", "block-000002"]


def test_small_folders_share_a_block_and_large_ones_are_cut() -> None:
    blocks = planned(triangle(0, 3), triangle(3, 4), triangle(4, 6), triangle(6, 7), triangle(7, 16), max_images=6)
    assert images_of(blocks[0]) == {0, 1, 2, 4, 5}
    assert all(images_of(block) <= set(range(7, 16)) for block in blocks[1:])
    assert len(blocks) == 4


def test_neighbours_and_one_against_all_read_hardly_an_image_twice() -> None:
    strips = planned(band((0, 100), (0, 100), 3), max_images=23)
    assert sum(block.num_images for block in strips) == 100 + 3 * (len(strips) - 1)
    star = planned(Span(40, 41, 0, 40), Span(40, 41, 41, 100), max_images=12)
    assert sum(block.num_images for block in star) == 99 + len(star)
    assert len(star) == 10


def random_plans(count: int) -> Iterator[tuple[list[Span], int, int]]:
    drawn = random.Random(3)
    for _ in range(count):
        begin, spans = 0, []
        for _ in range(drawn.randrange(1, 6)):
            end = begin + drawn.randrange(2, 40)
            reach = drawn.choice([drawn.randrange(1, 60), end])
            between = drawn.randrange(begin + 1, end)
            rectangle = Span(between, end, begin, between)
            spans.append(rectangle if drawn.random() < 0.2 else band((begin, end), (begin, end), reach))
            begin = end + drawn.randrange(3)
        yield [s for s in spans if s], drawn.randrange(2, 40), drawn.choice([1, 2, 5, 30, 200, 10**6])


def test_every_pair_once_and_never_over_a_limit() -> None:
    for spans, max_images, max_pairs in random_plans(100):
        blocks = planned(*spans, max_images=max_images, max_pairs=max_pairs)
        assert Counter(p for b in blocks for p in listed(b)) == Counter(p for s in spans for p in s)
        first = 0
        for index, block in enumerate(blocks):
            assert (block.index, block.first_pair) == (index, first)
            assert block.num_pairs == len(listed(block)) <= max_pairs
            assert block.num_images == len(images_of(block)) <= max_images
            assert block.num_shared == (len(images_of(block) & images_of(blocks[index - 1])) if index else 0)
            assert [tuple(pair) for pair in block.positions().tolist()] == listed(block)
            first += block.num_pairs
        assert blocks == planned(*spans, max_images=max_images, max_pairs=max_pairs)


@pytest.mark.parametrize("num_images", [1000, 1100, 999, 1049])
def test_tiles_of_all_pairs_share_a_group_with_the_block_before(num_images: int) -> None:
    blocks = planned(triangle(0, num_images), max_images=100)
    groups = -(-num_images // 50)
    assert sum(block.num_images for block in blocks) <= num_images * groups
    small = num_images // groups
    assert all(block.num_shared >= small for block in blocks[1:])


def test_ten_to_the_twelve_pairs_are_planned_one_block_at_a_time() -> None:
    blocks = plan_spans([s for s in [triangle(0, 1_500_000)] if s], max_images=1000, max_pairs=10**6)
    assert sum(next(blocks).num_pairs for _ in range(1000)) > 2 * 10**8


def test_a_planned_block_travels_as_json() -> None:
    for spans, max_images, max_pairs in random_plans(20):
        for block in planned(*spans, max_images=max_images, max_pairs=max_pairs):
            assert planned_block_from_json(json.loads(json.dumps(block.to_json()))) == block
    listed_block = PlannedBlock(3, 100, 7, 5, 2)
    assert planned_block_from_json(listed_block.to_json()) == listed_block


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extra": 1}, "exactly"),
        ({"spans": None}, "list of spans"),
        ({"spans": [[0, 2, 1, 3, 0]]}, "pairs an image with itself"),
        ({"index": "0"}, "whole numbers"),
        ({"first_pair": -1}, "none below 0"),
        ({"num_pairs": 7}, "other numbers of pairs and images"),
        ({"num_images": 5}, "other numbers of pairs and images"),
        ({"num_shared": 5}, "cannot be true"),
        ({"spans": [], "num_pairs": 0}, "cannot be true"),
    ],
)
def test_what_is_no_planned_block(change: dict[str, Any], reason: str) -> None:
    value = planned(triangle(0, 4), max_images=4)[0].to_json()
    with pytest.raises(InputError, match=reason):
        planned_block_from_json(value | change)


def test_images_within_a_budget() -> None:
    assert images_within(1000, 90) == 11
    with pytest.raises(InputError, match="less than two images take"):
        images_within(179, 90)
    with pytest.raises(InputError, match="bytes_per_image: 0"):
        images_within(179, 0)


@pytest.mark.parametrize(
    ("num_pairs", "max_pairs"), [(1, 24), (84, 24), (150, 25), (1_000, 167), (2_999, 500), (10**9, 500)]
)
def test_small_collections_have_small_blocks(num_pairs: int, max_pairs: int) -> None:
    assert pairs_of_a_block(num_pairs) == max_pairs
    assert SMALLEST_BLOCK <= max_pairs <= LARGEST_BLOCK


def test_there_are_blocks_for_several_workers() -> None:
    for num_images in (25, 40, 90, 200):
        spans = [span for span in [triangle(0, num_images)] if span]
        num_pairs = num_images * (num_images - 1) // 2
        blocks = list(plan_spans(spans, max_images=100, max_pairs=pairs_of_a_block(num_pairs)))
        assert len(blocks) >= WANTED_BLOCKS
        assert sum(block.num_pairs for block in blocks) == num_pairs


def test_folders_of_few_images_are_blocks_of_their_own() -> None:
    spans = [span for n in range(4) if (span := triangle(7 * n, 7 * n + 7))]
    blocks = list(plan_spans(spans, max_images=100, max_pairs=pairs_of_a_block(84)))
    assert [(block.num_pairs, block.num_images, block.num_shared) for block in blocks] == [(21, 7, 0)] * 4


def test_what_is_given_counts_and_the_rest_is_chosen() -> None:
    assert block_limits(84) == BlockLimits(max_images=48, max_pairs=24)
    assert block_limits(None) == BlockLimits(max_images=1000, max_pairs=500)
    assert block_limits(84, max_pairs=500) == BlockLimits(max_images=1000, max_pairs=500)
    assert block_limits(84, max_images=30) == BlockLimits(max_images=30, max_pairs=24)


@pytest.mark.parametrize(
    "spans",
    [
        [triangle(0, 60)],
        [triangle(first, first + 2) for first in range(0, 200, 2)],
        [Span(9, 10, 0, 9), Span(9, 10, 10, 200)],
        *([band((0, 150), (0, 150), reach)] for reach in (1, 3, 5, 20)),
    ],
)
@pytest.mark.parametrize("max_pairs", [1, 7, 24, 100])
def test_more_images_than_the_pairs_of_a_block_can_have_change_no_plan(spans: list[Span], max_pairs: int) -> None:
    plans = [
        list(plan_spans(spans, max_images=max_images, max_pairs=max_pairs))
        for max_images in (block_limits(None, max_pairs=max_pairs).max_images, 2 * max_pairs + 1, 10**6)
    ]
    assert plans[0] == plans[1] == plans[2]


def random_spans() -> list[Span]:
    drawn = random.Random(1)
    rectangles = [Span(7, 7 + a, 2, 2 + b) for a in range(1, 5) for b in range(1, 5)]
    bands = []
    for _ in range(3000):
        a, b, c, d = (drawn.randrange(14) for _ in range(4))
        bands.append(band((a, a + b), (c, c + d), drawn.randrange(12)))
    return rectangles + [span for span in bands if span]


def test_arrays_agree_with_the_listed_pairs() -> None:
    spans = random_spans()
    assert len(spans) > 500
    for span in spans:
        pairs = list(span)
        assert [tuple(pair) for pair in pair_positions(span).tolist()] == pairs
        assert pair_positions(span).dtype == np.int32
        assert num_degrees([span], 40).tolist() == np.bincount(np.array(pairs).ravel(), minlength=40).tolist()
