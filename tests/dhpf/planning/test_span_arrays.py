import random

import numpy as np

from dhpf.planning.span_arrays import num_degrees, pair_positions
from dhpf.planning.spans import Span, band


def random_spans() -> list[Span]:
    drawn = random.Random(1)
    rectangles = [Span(7, 7 + a, 2, 2 + b) for a in range(1, 5) for b in range(1, 5)]
    bands = []
    for _ in range(3000):
        a, b, c, d = (drawn.randrange(14) for _ in range(4))
        bands.append(band((a, a + b), (c, c + d), drawn.randrange(12)))
    return rectangles + [span for span in bands if span]


def test_arrays_agree_with_the_listed_pairs() -> None:
    spans = random_spans()
    assert len(spans) > 500
    for span in spans:
        pairs = list(span)
        assert [tuple(pair) for pair in pair_positions(span).tolist()] == pairs
        assert pair_positions(span).dtype == np.int32
        assert num_degrees([span], 40).tolist() == np.bincount(np.array(pairs).ravel(), minlength=40).tolist()


def test_degrees_of_several_spans_add_up() -> None:
    assert num_degrees([Span(0, 1, 1, 3), Span(3, 4, 0, 2)], 5).tolist() == [3, 2, 1, 2, 0]
