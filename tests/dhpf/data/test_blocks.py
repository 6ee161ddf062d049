from collections.abc import Iterator

import pytest

from dhpf.data.blocks import plan_blocks
from dhpf.errors import InputError
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
    """The planner is never more than one pair ahead of what it gave, so that any number of pairs can stream through."""
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
