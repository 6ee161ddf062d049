import pytest

from dhpf.planning.block_size import LARGEST_BLOCK, SMALLEST_BLOCK, WANTED_BLOCKS, pairs_of_a_block
from dhpf.planning.blocks import plan_spans
from dhpf.planning.spans import triangle


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
