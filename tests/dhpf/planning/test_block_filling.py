import numpy as np

from dhpf.planning.block_filling import BlockFiller


def fill(filler: BlockFiller, *tiles: tuple[int, str]) -> list[list[int]]:
    """Fills blocks with tiles such as (7, "ab ac"): a tile's rank, and its pairs of images, which are letters."""
    pairs = [(rank, *(ord(name) - ord("a") for name in pair)) for rank, text in tiles for pair in text.split()]
    ranks, lower, upper = np.array(pairs).T
    return filler.fill(ranks, lower.astype(np.int32), upper.astype(np.int32)).tolist()


def test_a_block_closes_when_a_tile_does_not_fit() -> None:
    filler = BlockFiller(num_images=26, max_images=4, max_pairs=99)
    assert fill(filler, (1, "ab ac"), (2, "bd"), (3, "de")) == [[3, 4, 0]]
    assert filler.close().tolist() == [[1, 2, 1]]


def test_a_tile_stays_whole_across_calls() -> None:
    filler = BlockFiller(num_images=26, max_images=9, max_pairs=3)
    assert fill(filler, (1, "ab ac")) == []
    assert fill(filler, (2, "ad ae")) == [[2, 3, 0]]
    assert filler.close().tolist() == [[2, 3, 1]]


def test_a_tile_of_too_many_pairs_is_split() -> None:
    filler = BlockFiller(num_images=26, max_images=4, max_pairs=2)
    assert fill(filler, (1, "xy"), (2, "ab ac ad bc bd")) == [[1, 2, 0], [2, 3, 0], [2, 4, 3]]
    assert filler.close().tolist() == [[1, 2, 2]]


def test_a_full_block_closes_before_the_next_tile() -> None:
    filler = BlockFiller(num_images=26, max_images=4, max_pairs=1)
    assert fill(filler, (1, "ab"), (2, "ab")) == [[1, 2, 0]]
    assert filler.close().tolist() == [[1, 2, 2]]


def test_nothing_to_close() -> None:
    assert BlockFiller(num_images=2, max_images=2, max_pairs=1).close().tolist() == []
