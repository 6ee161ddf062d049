"""The page on ten million images holds what the script computes from the committed figures, and the sums are right."""

from __future__ import annotations

import pytest

from benchmarks.ten_million import BEGIN, DOCS, END, NUM_GPUS, Estimate, Pieces, Plan, table_from_files
from benchmarks.ten_million_measures import measure

PIECES = Pieces(
    gpu_seconds_per_image=0.01,
    gpu_seconds_per_pair=0.001,
    cpu_seconds_per_image=0.004,
    bytes_per_pair=1000,
    bytes_per_block=5000,
    puts_per_block=3,
    gets_per_block=2,
    commit_seconds=0.125,
    blocks_per_second=100,
    finish_seconds_per_block=1e-4,
    finish_mb_per_block=1e-3,
)
PLAN = Plan(num_blocks=64_000, num_pairs=32_000_000, num_described=3_200_000)


def test_the_page_shows_what_the_script_computes() -> None:
    page = (DOCS / "scale.md").read_text()
    assert page.split(BEGIN)[1].split(END)[0] == table_from_files()


def test_hours_requests_and_bytes_add_up() -> None:
    estimate = Estimate(PLAN, PIECES)
    assert estimate.gpu_hours == pytest.approx((32_000 + 32_000 + 8_000) / 3600)
    assert estimate.hours == pytest.approx(72_000 / 64 / 3600)
    assert (estimate.gets, estimate.puts) == (128_000 + 3_200_000, 192_000)
    assert estimate.bytes_written == 64_000 * 5000 + 32e9


def test_what_breaks_first_says_how_long_it_takes() -> None:
    estimate = Estimate(PLAN, PIECES)
    assert estimate.limits["blocks that the driver hands out"] == pytest.approx((64_000 / 1125, 100))
    assert estimate.limits["images that are decoded"] == pytest.approx((3_200_000 / 1125, NUM_GPUS * 4 / 0.004))
    assert estimate.breaks_first == "blocks that the driver hands out"
    assert estimate.slowed_hours == estimate.hours  # it holds
    slow = Estimate(PLAN, Pieces(**vars(PIECES) | {"blocks_per_second": 8}))
    assert slow.slowed_hours == pytest.approx(64_000 / 8 / 3600)


def test_planning_is_counted_and_what_is_measured_is_there() -> None:
    found = measure(1_000, 10)
    plans = [Plan(**counts) for counts in found["plans"].values()]
    assert [(plan.num_pairs, plan.num_blocks) for plan in plans] == [(9_945, 20), (9_945, 4)]
    assert plans[0].num_described > plans[1].num_described > 1_000
    assert all(found[name] > 0 for name in ("cpu_seconds_per_image", "bytes_per_pair", "bytes_per_block"))
