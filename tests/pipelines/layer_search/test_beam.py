from collections.abc import Callable

import pytest

from dhpf.pipelines.layer_search.beam import Layers, Level, ScoredSet, best_set, kept_sets, next_sets


def searched(pck: Callable[[Layers], float], num_layers: int, beam: int, max_layers: int) -> list[Level]:
    levels: list[Level] = []
    while len(levels) < max_layers and (sets := next_sets(levels, num_layers, beam)):
        levels.append([ScoredSet(layers, pck(layers)) for layers in sets])
    return levels


def test_single_layers_come_first_and_the_best_are_extended_by_one() -> None:
    singles = [ScoredSet((layer,), pck) for layer, pck in enumerate([0.1, 0.5, 0.3, 0.4])]
    assert next_sets([], 4, 2) == [(0,), (1,), (2,), (3,)]
    assert next_sets([singles], 4, 2) == [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert next_sets([singles], 4, 1) == [(0, 1), (1, 2), (1, 3)]


def made_up_pck(layers: Layers) -> float:
    """A score by which layer 0 is the best alone, layers 1 and 2 are the best pair, and more than three are worse."""
    worth = {0: 0.5, 1: 0.3, 2: 0.2, 3: 0.1, 4: 0.05}
    together = 0.6 if {1, 2} <= set(layers) else 0.0
    return sum(worth[layer] for layer in layers) / len(layers) + together - max(0, len(layers) - 3)


def test_a_wider_beam_finds_what_a_greedy_search_misses() -> None:
    assert best_set(searched(made_up_pck, 5, beam=1, max_layers=2)).layers == (0,)
    assert best_set(searched(made_up_pck, 5, beam=2, max_layers=2)).layers == (1, 2)


@pytest.mark.parametrize("beam", [1, 3, 100])
def test_no_set_is_scored_twice_and_a_search_ends(beam: int) -> None:
    levels = searched(made_up_pck, 5, beam, max_layers=5)
    scored = [found.layers for level in levels for found in level]
    assert len(scored) == len(set(scored))
    assert all(list(layers) == sorted(set(layers)) for layers in scored)
    sizes = [best_set([level]).pck for level in levels]
    assert all(pck > max(sizes[:n]) for n, pck in enumerate(sizes[:-1]) if n), "only the last level was in vain"
    assert next_sets(levels, 5, beam) == []


def test_a_search_ends_when_no_layer_is_left() -> None:
    levels = searched(lambda layers: len(layers) / 10, 3, beam=2, max_layers=10)
    assert [len(level) for level in levels] == [3, 3, 1]
    assert best_set(levels).layers == (0, 1, 2)


def test_ties_go_to_small_sets_and_low_layers() -> None:
    level = [ScoredSet((3,), 0.5), ScoredSet((1,), 0.5), ScoredSet((0,), 0.4)]
    assert [scored.layers for scored in kept_sets(level, 2)] == [(1,), (3,)]
    assert best_set([level, [ScoredSet((0, 1), 0.5)]]).layers == (1,)
    assert next_sets([level, [ScoredSet((0, 1), 0.5)]], 4, 2) == []
