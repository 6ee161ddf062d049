import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dhpf.errors import InputError
from dhpf.planning import listed_blocks
from dhpf.planning.blocks import LISTED_PAIRS, PlannedBlock, plan_spans, read_block
from dhpf.planning.listed_blocks import POINTS, ListedPlan, plan_listed
from dhpf.planning.spans import triangle
from dhpf.storage import location_of

Pair = tuple[int, int]


def batches(pairs: list[Pair], rows: int = 1000) -> Iterator[pa.RecordBatch]:
    for begin in range(0, len(pairs), rows):
        part = pairs[begin : begin + rows]
        columns = [range(begin, begin + len(part)), [a for a, _ in part], [b for _, b in part]]
        yield pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, LISTED_PAIRS, strict=True)], LISTED_PAIRS)


def planned(
    pairs: list[Pair], folder: Path, max_images: int, max_pairs: int = 10**9, num_images: int | None = None
) -> tuple[ListedPlan, list[tuple[int, int, int, int]]]:
    duplicates: list[tuple[int, int, int, int]] = []
    plan = plan_listed(
        batches(pairs),
        1 + max((image for pair in pairs for image in pair), default=0) if num_images is None else num_images,
        folder,
        max_images=max_images,
        max_pairs=max_pairs,
        on_duplicates=lambda *columns: duplicates.extend(zip(*(c.tolist() for c in columns), strict=True)),
    )
    return plan, duplicates


def content(plan: ListedPlan, block: PlannedBlock) -> list[tuple[int, int, int]]:
    batch = read_block(location_of(plan.path), block)
    return [tuple(row.values()) for row in batch.to_pylist()]  # type: ignore[misc]


def clusters(num_clusters: int, size: int) -> list[Pair]:
    """All pairs within each cluster of images, in random order; the images' numbers do not tell their clusters."""
    drawn = random.Random(0)
    names = list(range(num_clusters * size))
    drawn.shuffle(names)
    members = [names[size * c : size * (c + 1)] for c in range(num_clusters)]
    pairs = [pair for cluster in members for pair in itertools.combinations(cluster, 2)]
    drawn.shuffle(pairs)
    return pairs


def random_list(drawn: random.Random) -> tuple[list[Pair], int, int]:
    num_images = drawn.randrange(2, 60)
    pairs = [drawn.choice(list(itertools.permutations(range(num_images), 2))) for _ in range(drawn.randrange(400))]
    return pairs, drawn.choice([2, 3, 7, 20, 100]), drawn.choice([1, 2, 9, 50, 10**6])


def test_every_row_once_and_never_over_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(4)
    for attempt in range(30):
        monkeypatch.setattr(listed_blocks, "SORTED_BYTES", drawn.choice([1, 3000, 64_000_000]))
        pairs, max_images, max_pairs = random_list(drawn)
        plan, duplicates = planned(pairs, tmp_path, max_images, max_pairs)
        blocks = list(plan.blocks())
        rows = [row for block in blocks for row in content(plan, block)]
        first_rows = {pair: number for number, pair in reversed(list(enumerate(pairs)))}
        assert Counter(rows) == Counter((number, *pair) for pair, number in first_rows.items()), attempt
        assert sorted(duplicates) == [(n, first_rows[p], *p) for n, p in enumerate(pairs) if n != first_rows[p]]
        images: set[int] = set()
        for index, block in enumerate(blocks):
            before, images = images, {image for _, *pair in content(plan, block) for image in pair}
            assert (block.index, block.num_images, block.num_shared) == (index, len(images), len(images & before))
            assert len(images) <= max_images
            assert block.num_pairs <= max_pairs
        assert [b.first_pair for b in blocks] == [sum(b.num_pairs for b in blocks[:i]) for i in range(len(blocks))]
        partners = Counter(image for pair in {frozenset(pair) for pair in pairs} for image in pair)
        assert plan.degrees.tolist() == [partners[image] for image in range(len(plan.degrees))]


def test_shuffled_clusters_are_found(tmp_path: Path) -> None:
    """Forty clusters of 25 images: every image is read about once, as if the clusters had been known."""
    plan, _ = planned(clusters(40, 25), tmp_path, max_images=100)
    summary = plan.summary(max_images=100, max_pairs=10**9)
    assert summary.ideal_images == 1000
    assert summary.num_images <= 1.15 * summary.ideal_images


def test_a_list_of_all_pairs_is_cut_as_well_as_the_closed_form(tmp_path: Path) -> None:
    pairs = clusters(1, 330)
    for max_pairs in (10**9, 1000):
        plan, _ = planned(pairs, tmp_path, 60, max_pairs)
        closed = list(plan_spans([s for s in [triangle(0, 330)] if s], max_images=60, max_pairs=max_pairs))
        listed = list(plan.blocks())
        assert sum(block.num_images for block in listed) <= 1.05 * sum(block.num_images for block in closed)
        assert sum(block.num_shared for block in listed) >= 0.95 * sum(block.num_shared for block in closed)


def test_the_same_list_gives_the_same_bytes_and_the_same_blocks_in_whatever_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = clusters(7, 20)
    first, _ = planned(pairs, tmp_path / "a", 30, 100)
    second, _ = planned(pairs, tmp_path / "b", 30, 100)
    monkeypatch.setattr(listed_blocks, "SORTED_BYTES", 2000)
    in_parts, _ = planned(pairs, tmp_path / "c", 30, 100)
    assert first.path.read_bytes() == second.path.read_bytes()
    whole, dealt = ([content(plan, block) for block in plan.blocks()] for plan in (first, in_parts))
    assert whole == dealt
    assert first.counts == second.counts == in_parts.counts
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["pairs.arrow"]


def test_a_block_does_not_depend_on_the_sample_being_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_blocks, "SAMPLE_SIZE", 2000)
    plan, _ = planned(clusters(40, 25), tmp_path, max_images=100)
    summary = plan.summary(max_images=100, max_pairs=10**9)
    assert summary.num_pairs == 12_000
    assert summary.num_images <= 1.5 * summary.ideal_images


def test_points_stay_with_their_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_blocks, "SORTED_BYTES", 500)
    pairs = clusters(5, 8)
    points = [None if n % 3 == 0 else [[float(n), k] for k in range(n % 5)] for n in range(len(pairs))]
    (batch,) = batches(pairs)
    batch = batch.append_column(pa.field("points", POINTS), pa.array(points, POINTS))
    plan = plan_listed([batch], 40, tmp_path, max_images=8, max_pairs=20)
    rows = [row for block in plan.blocks() for row in read_block(location_of(plan.path), block).to_pylist()]
    assert {row["number"]: row["points"] for row in rows} == dict(enumerate(points))


def test_an_empty_list(tmp_path: Path) -> None:
    plan, _ = planned([], tmp_path, max_images=2, num_images=5)
    assert len(plan) == 0
    assert plan.summary(max_images=2, max_pairs=1).num_pairs == 0


def test_a_file_of_another_plan_is_refused(tmp_path: Path) -> None:
    plan, _ = planned(clusters(4, 5), tmp_path, max_images=5)
    last = list(plan.blocks())[-1]
    planned(clusters(1, 5), tmp_path, max_images=5)
    with pytest.raises(InputError, match="not there as planned; plan the list again"):
        read_block(location_of(plan.path), last)
    plan.path.write_bytes(plan.path.read_bytes()[:100])
    with pytest.raises(InputError, match="not readable"):
        read_block(location_of(plan.path), last)


def test_every_flipped_byte_is_found_or_changes_nothing(tmp_path: Path) -> None:
    (batch,) = batches(clusters(2, 4))
    points = pa.array([None if n % 3 == 0 else [[float(n), 1]] for n in range(len(batch))], POINTS)
    plan = plan_listed(
        [batch.append_column(pa.field("points", POINTS), points)], 8, tmp_path, max_images=6, max_pairs=5
    )
    whole, place, blocks = plan.path.read_bytes(), location_of(plan.path), list(plan.blocks())

    def read() -> list[pa.RecordBatch]:
        return [read_block(place, block) for block in blocks]

    written, num_found = [block.to_pylist() for block in read()], 0
    for at in range(0, len(whole), 3):
        plan.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found = read()
        except InputError:
            num_found += 1
        else:
            assert [block.to_pylist() for block in found] == written, f"byte {at} of {len(whole)}"
    assert num_found > 150, "the others are padding, or written a second time"


def test_limits_that_no_pair_can_keep(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_images: 1 must be at least 2"):
        planned([(0, 1)], tmp_path, max_images=1)


def test_numbers_are_kept_as_integers(tmp_path: Path) -> None:
    plan, _ = planned([(0, 1)], tmp_path, max_images=2)
    assert plan.degrees.dtype == np.int64
    assert content(plan, next(plan.blocks())) == [(0, 0, 1)]
