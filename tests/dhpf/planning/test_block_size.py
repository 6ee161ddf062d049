import pytest

from dhpf.planning.block_size import (
    LARGEST_BLOCK,
    SMALLEST_BLOCK,
    WANTED_BLOCKS,
    BlockLimits,
    block_limits,
    pairs_of_a_block,
)
from dhpf.planning.blocks import plan_spans
from dhpf.planning.spans import Span, band, triangle


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
