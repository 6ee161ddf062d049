import itertools
from collections import Counter
from typing import Any

import pytest

from dhpf.errors import InputError
from dhpf.planning.blocks import plan_spans
from dhpf.planning.select import select

IMAGES = ["a.jpg", "x/1.jpg", "x/2.jpg", "x/2/9.jpg", "x/3.jpg", "x/3/8.jpg", "x/3/9.jpg"]
LETTERS = ["a", "b", "c", "d"]


def test_all_pairs() -> None:
    assert list(select(LETTERS, "all").pairs()) == list(itertools.combinations(LETTERS, 2))
    assert select(LETTERS, "all").num_pairs == 6


def test_pairs_within_folders_with_folders_inside_them() -> None:
    selection = select(IMAGES, "within-folders")
    assert sorted(selection.images) == IMAGES
    assert list(selection.pairs()) == [
        ("x/1.jpg", "x/2.jpg"),
        ("x/1.jpg", "x/3.jpg"),
        ("x/2.jpg", "x/3.jpg"),
        ("x/3/8.jpg", "x/3/9.jpg"),
    ]


@pytest.mark.parametrize("reference", LETTERS)
def test_one_image_with_all_others(reference: str) -> None:
    selection = select(LETTERS, "reference", reference=reference)
    assert list(selection.pairs()) == [(reference, other) for other in LETTERS if other != reference]


def test_neighbours() -> None:
    assert list(select(LETTERS, "neighbours", reach=1).pairs()) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert select(LETTERS, "neighbours", reach=2).num_pairs == 5
    assert select(LETTERS, "neighbours", reach=99).num_pairs == 6


@pytest.mark.parametrize("images", [[], ["a"]])
def test_collections_without_pairs(images: list[str]) -> None:
    for how, given in (("all", {}), ("within-folders", {}), ("neighbours", {"reach": 3})):
        assert select(images, how, **given).spans == ()  # type: ignore[arg-type]
    assert select(["a"], "reference", reference="a").num_pairs == 0


def test_degrees_count_the_pairs_of_each_image() -> None:
    for how, given in (
        ("all", {}),
        ("within-folders", {}),
        ("neighbours", {"reach": 2}),
        ("reference", {"reference": "a.jpg"}),
    ):
        selection = select(IMAGES, how, **given)  # type: ignore[arg-type]
        counted = Counter(image for pair in selection.pairs() for image in pair)
        assert selection.degrees().tolist() == [counted[image] for image in selection.images]


def test_a_million_images_are_counted_at_once() -> None:
    images = [f"{number:07d}" for number in range(1_000_000)]
    selection = select(images, "all")
    assert selection.num_pairs == 499_999_500_000
    assert next(plan_spans(selection.spans, max_images=1000, max_pairs=10**6)).num_images == 1000


@pytest.mark.parametrize(
    ("how", "given", "reason"),
    [
        ("neighbors", {}, "unknown value 'neighbors'; did you mean 'neighbours'"),
        ("reference", {}, "reference: None with selection 'reference'; give it"),
        ("all", {"reference": "a"}, "'a' with selection 'all'; give it with selection 'reference'"),
        ("neighbours", {}, "reach: None with selection 'neighbours'"),
        ("all", {"reach": 2}, "reach: 2 with selection 'all'"),
        ("neighbours", {"reach": 0}, "reach: 0 must be at least 1"),
        ("reference", {"reference": "aa"}, "no image 'aa' among the 4 images; .*choices: a, b, c, d"),
    ],
)
def test_what_cannot_be_selected(how: str, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        select(LETTERS, how, **given)


def test_a_reference_that_is_nearly_right() -> None:
    images = [f"cats/{number:04d}.jpg" for number in range(100)]
    with pytest.raises(InputError, match=r"did you mean 'cats/0042.jpg'\?$"):
        select(images, "reference", reference="cats/0042.jpeg")


@pytest.mark.parametrize("images", [["b", "a"], ["a", "a"]])
def test_images_out_of_order(images: list[str]) -> None:
    with pytest.raises(InputError, match="must be sorted"):
        select(images, "all")
