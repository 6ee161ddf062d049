import itertools
import json
import random
from typing import Any

import pytest

from dhpf.errors import InputError
from dhpf.planning.spans import Span, band, merged, num_positions, span_from_json, triangle


def by_definition(sources: range, targets: range, reach: int) -> list[tuple[int, int]]:
    return [(i, j) for i in sources for j in targets if not reach or 0 < j - i <= reach]


def random_spans(count: int) -> list[Span]:
    drawn = random.Random(1)
    spans: list[Span | None] = []
    for _ in range(count):
        a, b, c, d = (drawn.randrange(14) for _ in range(4))
        spans.append(band((a, a + b), (c, c + d), drawn.randrange(12)))
    for a, b in itertools.product(range(1, 5), range(1, 5)):
        spans.append(Span(7, 7 + a, 2, 2 + b))
    return [span for span in spans if span]


def test_hand_written_spans() -> None:
    corner = triangle(3, 6)
    assert corner is not None and list(corner) == [(3, 4), (3, 5), (4, 5)]
    assert list(Span(4, 5, 0, 2)) == [(4, 0), (4, 1)]
    near = band((0, 4), (0, 4), 2)
    assert near is not None and list(near) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert band((0, 10), (10, 20), 3) == Span(7, 10, 10, 13, 3)
    assert band((0, 10), (10, 20), 99) == Span(0, 10, 10, 20)


def test_nothing_to_pair() -> None:
    assert triangle(5, 6) is None
    assert triangle(5, 5) is None
    assert band((0, 4), (8, 9), 4) is None
    assert band((0, 4), (0, 4), 0) is None


def test_counts_and_lists_agree() -> None:
    spans = random_spans(3000)
    assert len(spans) > 500
    for span in spans:
        pairs = by_definition(range(*span.ranges[0]), range(*span.ranges[1]), span.reach)
        assert list(span) == pairs
        assert span.num_pairs == len(pairs)
        assert span.num_images == len({position for pair in pairs for position in pair})


def test_cutting_to_a_band_keeps_its_pairs() -> None:
    drawn = random.Random(2)
    for _ in range(2000):
        a, b, c, d = (drawn.randrange(12) for _ in range(4))
        reach = drawn.randrange(1, 12)
        span = band((a, a + b), (c, c + d), reach)
        assert list(span or ()) == by_definition(range(a, a + b), range(c, c + d), reach)


def test_a_huge_span_is_counted_at_once() -> None:
    everything = triangle(0, 10**9)
    assert everything is not None
    assert everything.num_pairs == 10**9 * (10**9 - 1) // 2
    assert everything.num_images == 10**9


def test_json_there_and_back() -> None:
    for span in random_spans(50):
        assert span_from_json(json.loads(json.dumps(span.to_json()))) == span


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x", "list of 5 whole numbers"),
        ([0, 1, 1, 2], "list of 5 whole numbers"),
        ([0, 1, 1, 2.0, 0], "must be whole numbers"),
        ([0, True, 1, 2, 0], "must be whole numbers"),
        ([0, 1, -1, 2, 0], "none below 0"),
        ([1, 1, 1, 2, 0], "holds no pair"),
        ([0, 2, 1, 3, 0], "pairs an image with itself"),
        ([0, 9, 1, 3, 2], "names an image that is in none of its pairs"),
        ([0, 2, 1, 9, 2], "names an image that is in none of its pairs"),
    ],
)
def test_what_is_no_span(value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        span_from_json(value)


def test_ranges_merged() -> None:
    assert merged([(5, 7), (0, 2), (2, 3), (6, 9), (1, 2)]) == [(0, 3), (5, 9)]
    assert num_positions(merged([(0, 2), (1, 4), (6, 7)])) == 5
