import dataclasses
import itertools
from collections import Counter
from typing import Any

import pytest

from dhpf.errors import InputError
from dhpf.planning import select as module
from dhpf.planning.blocks import plan_spans
from dhpf.planning.plan_summary import num_degrees
from dhpf.planning.select import (
    PAIR_SELECTS,
    SELECT_OPTIONS,
    All,
    ChosenPairs,
    ClosedSelect,
    Neighbours,
    PairList,
    Reference,
    WithinFolders,
    choose_pairs,
    gather_select,
    pair_select,
)

IMAGES = ["a.jpg", "x/1.jpg", "x/2.jpg", "x/2/9.jpg", "x/3.jpg", "x/3/8.jpg", "x/3/9.jpg"]
LETTERS = ["a", "b", "c", "d"]


def chosen(select: ClosedSelect, images: list[str] = LETTERS) -> list[tuple[str, str]]:
    return list(choose_pairs(select, images).pairs())


def test_all_pairs() -> None:
    assert chosen(All()) == list(itertools.combinations(LETTERS, 2))
    assert choose_pairs(All(), LETTERS).num_pairs == 6


def test_pairs_within_folders_with_folders_inside_them() -> None:
    assert sorted(choose_pairs(WithinFolders(), IMAGES).images) == IMAGES
    assert chosen(WithinFolders(), IMAGES) == [
        ("x/1.jpg", "x/2.jpg"),
        ("x/1.jpg", "x/3.jpg"),
        ("x/2.jpg", "x/3.jpg"),
        ("x/3/8.jpg", "x/3/9.jpg"),
    ]


@pytest.mark.parametrize("reference", LETTERS)
def test_one_image_with_all_others(reference: str) -> None:
    assert chosen(Reference(reference)) == [(reference, other) for other in LETTERS if other != reference]


def test_neighbours() -> None:
    assert chosen(Neighbours(1)) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert len(chosen(Neighbours(2))) == 5
    assert len(chosen(Neighbours(99))) == 6


@pytest.mark.parametrize("images", [[], ["a"]])
def test_collections_without_pairs(images: list[str]) -> None:
    for select in (All(), WithinFolders(), Neighbours(3)):
        assert choose_pairs(select, images).spans == ()
    assert choose_pairs(Reference("a"), ["a"]).num_pairs == 0


def test_degrees_count_the_pairs_of_each_image() -> None:
    for select in (All(), WithinFolders(), Neighbours(2), Reference("a.jpg")):
        pairs = choose_pairs(select, IMAGES)
        counted = Counter(image for pair in pairs.pairs() for image in pair)
        degrees = num_degrees(pairs.spans, len(pairs.images))
        assert degrees.tolist() == [counted[image] for image in pairs.images]


def test_a_million_images_are_counted_at_once() -> None:
    pairs = choose_pairs(All(), [f"{number:07d}" for number in range(1_000_000)])
    assert pairs.num_pairs == 499_999_500_000
    assert next(plan_spans(pairs.spans, max_images=1000, max_pairs=10**6)).num_images == 1000


def test_every_choice_has_the_name_that_the_table_calls_it() -> None:
    options: dict[str, Any] = {"reference": "a", "reach": 2, "pair_list": "p.csv"}
    for name in PAIR_SELECTS:
        own = {key: value for key, value in options.items() if name in SELECT_OPTIONS[key].owners}
        select = pair_select(name, own)
        assert dataclasses.asdict(select) == {"name": name} | own


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("neighbors", {}, "select: unknown value 'neighbors'; did you mean 'neighbours'"),
        ("reference", {}, "reference: is missing; select 'reference' needs it"),
        ("all", {"reference": "a"}, "'a' with select 'all'; give it with select 'reference', and only with it"),
        ("neighbours", {"reach": None}, "reach: is missing; select 'neighbours' needs it"),
        ("all", {"reach": 2}, "reach: 2 with select 'all'"),
        ("neighbours", {"reach": 0}, "reach: 0 must be a whole number of at least 1"),
        ("neighbours", {"reach": True}, "reach: True must be a whole number"),
        ("neighbours", {"reach": "3"}, "reach: '3' must be a whole number"),
        ("reference", {"reference": 7}, "reference: 7 must be text"),
        ("list", {"pair_list": 7}, "pair_list: 7 must be text"),
        ("list", {"pair_list": "p.csv", "reach": 1}, "reach: 1 with select 'list'"),
    ],
)
def test_what_cannot_be_chosen(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        pair_select(name, options)


def test_options_beside_other_values_are_gathered() -> None:
    values = {"root": "photos", "select": "neighbours", "reach": 3, "reference": None}
    assert gather_select(values, All()) == {"root": "photos", "select": Neighbours(3)}
    assert gather_select({"max_pairs": 4}, WithinFolders()) == {"max_pairs": 4, "select": WithinFolders()}
    assert gather_select({"select": "list", "pair_list": "p"}, All()) == {"select": PairList("p")}


def test_a_choice_that_is_added_to_the_table_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Sparse:
        name: str = dataclasses.field(default="sparse", init=False)
        every: int = dataclasses.field(metadata={"metavar": "N", "help": "every Nth image", "flag": ""})

        def choose(self, images: tuple[str, ...]) -> ChosenPairs:
            return All().choose(images[:: self.every])

    monkeypatch.setattr(module, "PAIR_SELECTS", {**PAIR_SELECTS, "sparse": Sparse})
    monkeypatch.setattr(module, "SELECT_OPTIONS", module._options())
    added = gather_select({"select": "sparse", "every": 2}, All())["select"]
    assert chosen(added) == [("a", "c")]
    assert module.SELECT_OPTIONS["every"].flag == "--every"
    with pytest.raises(InputError, match="every: 2 with select 'all'; give it with select 'sparse'"):
        pair_select("all", {"every": 2})


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (LETTERS, "reference: no image 'aa' among the 4 images; .*choices: a, b, c, d"),
        (
            [f"cats/{number:04d}.jpg" for number in range(100)],
            "an id is the image's path below the collection",
        ),
        ([f"aa{number:02d}" for number in range(100)], r"did you mean 'aa\d\d'\?$"),
    ],
)
def test_a_reference_that_is_not_there(images: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        choose_pairs(Reference("aa"), images)


def test_a_reference_that_is_nearly_right() -> None:
    images = [f"cats/{number:04d}.jpg" for number in range(100)]
    with pytest.raises(InputError, match=r"did you mean 'cats/0042.jpg'\?$"):
        choose_pairs(Reference("cats/0042.jpeg"), images)


@pytest.mark.parametrize("images", [["b", "a"], ["a", "a"]])
def test_images_out_of_order(images: list[str]) -> None:
    with pytest.raises(InputError, match="must be sorted"):
        choose_pairs(All(), images)


def test_neighbours_are_counted_as_people_do() -> None:
    names = ["a/frame1.jpg", "a/frame2.jpg", "a/frame10.jpg", "a/frame010b.jpg", "a10/1.jpg", "b"]
    chosen = choose_pairs(Neighbours(1), sorted(names))
    assert chosen.images.index("a/frame2.jpg") == 1 and chosen.images.index("a/frame10.jpg") == 2
    assert sorted(chosen.images) == sorted(names)
    even = sorted(f"x/{number:03d}.jpg" for number in range(120))
    assert choose_pairs(Neighbours(1), even).images == tuple(even)
