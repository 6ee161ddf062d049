"""How long blocks may take."""

from dhpf.pipelines.blocks.pace import FIRST_PACE, MOST_DOUBLINGS, TIMES_AS_LONG, Pace


def test_no_block_has_less_than_the_least_and_large_ones_have_more() -> None:
    pace = Pace(600)
    assert pace.limit(3, 1) == 600
    assert pace.limit(10_000, 1) == TIMES_AS_LONG * FIRST_PACE * 10_000


def test_what_blocks_took_so_far_decides_and_one_slow_block_does_not() -> None:
    pace = Pace(1)
    for num_pairs, seconds in ((10, 20.0), (5, 10.0), (10, 5000.0), (0, 2.0)):
        pace.note(num_pairs, seconds)
    assert pace.limit(10, 1) == TIMES_AS_LONG * 20


def test_a_limit_that_was_too_short_corrects_itself() -> None:
    assert [Pace(600).limit(1, attempt) for attempt in (1, 2, 3)] == [600, 1200, 2400]
    assert Pace(600).limit(1, 1000) == 600 * 2**MOST_DOUBLINGS
