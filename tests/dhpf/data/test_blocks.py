from dhpf.data.blocks import plan_blocks
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
