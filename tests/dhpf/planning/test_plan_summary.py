from dataclasses import replace

import numpy as np
import pytest

from dhpf.errors import InputError
from dhpf.planning.blocks import plan_spans
from dhpf.planning.plan_summary import PlanSummary, counted, estimate, fewest_images, num_degrees, summarise
from dhpf.planning.spans import Span, triangle


def degrees(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def summary_of_all(num_images: int, max_images: int, max_pairs: int = 10**9) -> PlanSummary:
    spans = [span for span in [triangle(0, num_images)] if span]
    blocks = plan_spans(spans, max_images=max_images, max_pairs=max_pairs)
    return summarise(blocks, num_degrees(spans, num_images), max_images=max_images, max_pairs=max_pairs)


def test_bounds_by_hand() -> None:
    # Nine images in blocks of three: the affine plane of order three attains 12 blocks.
    assert fewest_images(degrees(*[8] * 9), max_images=3, max_pairs=99) == 36
    # A star of five pairs: each leaf once, the centre in every block.
    assert fewest_images(degrees(5, 1, 1, 1, 1, 1), max_images=3, max_pairs=99) == 8
    # Blocks of three pairs have at least three images.
    assert fewest_images(degrees(3, 3, 3, 3), max_images=4, max_pairs=3) == 6
    assert fewest_images(degrees(1, 1), max_images=2, max_pairs=1) == 2
    assert fewest_images(degrees(), max_images=2, max_pairs=1) == 0


def test_no_plan_beats_the_bound_and_tiles_come_within_two() -> None:
    for num_images in (7, 40, 91):
        for max_images in (2, 3, 9, 60):
            for max_pairs in (1, 20, 10**6):
                summary = summary_of_all(num_images, max_images, max_pairs)
                assert summary.num_pairs == num_images * (num_images - 1) // 2
                assert summary.num_images >= summary.ideal_images
                assert summary.described_per_pair == pytest.approx(summary.num_images / summary.num_pairs)
    big = summary_of_all(5000, 200)
    assert big.num_images < 2 * big.ideal_images
    assert big.num_images - big.num_shared < 1.05 * big.ideal_images


def test_the_summary_says_all() -> None:
    text = str(summary_of_all(1000, 100))
    assert "190 blocks, 499,500 pairs, 19,000 images to read" in text
    assert "0.03804 images described per pair" in text
    assert "fewer than 0.02202" in text


def test_an_estimate_by_hand() -> None:
    summary = PlanSummary(num_blocks=10, num_pairs=36_000, num_images=7_200, num_shared=0, ideal_images=1)
    found = estimate(
        summary,
        seconds_per_image=1,
        seconds_per_pair=0.8,
        bytes_per_image_file=1e6,
        bytes_per_block=8_000,
        bytes_per_pair=320,
        num_actors=4,
        price_per_hour=2,
    )
    assert found.actor_hours == pytest.approx(10)
    assert found.hours == pytest.approx(3)  # ten blocks on four actors: three rounds of an hour
    assert found.bytes_read == 7_200_000_000
    assert found.price == pytest.approx(20)
    assert found.bytes_written == 10 * 8_000 + 36_000 * 320
    said = "about 3.0 hours, 10.0 actor hours, 7.2 GB of images to read, 11.6 MB of results"
    assert str(found) == f"{said}, price 20.00"
    assert str(replace(found, price=None)) == said


def test_no_price_is_said_where_none_is_known() -> None:
    found = estimate(summary_of_all(10, 5), seconds_per_image=1, seconds_per_pair=1, bytes_per_image_file=1)
    assert found.price is None and "price" not in str(found)


def test_one_block_is_no_blocks() -> None:
    assert str(summary_of_all(2, 5)).startswith("1 block, 1 pair, 2 images to read")
    assert (counted(0, "block"), counted(1_234, "block")) == ("0 blocks", "1,234 blocks")


def test_an_empty_plan_costs_nothing() -> None:
    nothing = summarise([], degrees(0, 0), max_images=4, max_pairs=4)
    assert estimate(nothing, seconds_per_image=1, seconds_per_pair=1, bytes_per_image_file=1).hours == 0


@pytest.mark.parametrize(
    "change", [{"seconds_per_pair": -1.0}, {"price_per_hour": float("nan")}, {"num_actors": 0}], ids=str
)
def test_costs_that_cannot_be(change: dict[str, float]) -> None:
    given = {"seconds_per_image": 1.0, "seconds_per_pair": 1.0, "bytes_per_image_file": 1.0} | change
    with pytest.raises(InputError, match=next(iter(change))):
        estimate(summary_of_all(10, 5), **given)  # type: ignore[arg-type]


def test_degrees_of_several_spans_add_up() -> None:
    assert num_degrees([Span(0, 1, 1, 3), Span(3, 4, 0, 2)], 5).tolist() == [3, 2, 1, 2, 0]
