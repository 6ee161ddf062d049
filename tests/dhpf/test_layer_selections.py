"""What each kind of layer selection makes of a backbone, through the config that names it."""

from typing import get_args

import pytest

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.layer_selections import LAYER_SELECTIONS, GatesName, ProjectionName, SelectionName
from dhpf.model.gates import GATES


def test_every_name_has_its_kind_and_every_kind_of_gates_can_be_built() -> None:
    assert LAYER_SELECTIONS.keys() == set(get_args(SelectionName))
    assert GATES.keys() == set(get_args(GatesName)) == {kind.gates for kind in LAYER_SELECTIONS.values()}


@pytest.mark.parametrize(
    ("selection", "layers", "kept"),
    [("dynamic", (), (0, 1, 2, 3)), ("fixed", (3, 1, 3), (1, 3)), ("all", (), (0, 1, 2, 3)), ("last", (), (3,))],
)
def test_which_layers_are_kept(selection: SelectionName, layers: tuple[int, ...], kept: tuple[int, ...]) -> None:
    assert ModelConfig(selection=selection, layers=layers).kept_layers(4) == kept


def test_a_layer_that_the_backbone_does_not_have_is_named() -> None:
    with pytest.raises(InputError, match="efficientnet_lite0 has layers 0 to 3, not 7"):
        ModelConfig(selection="fixed", layers=(1, 7)).kept_layers(4)


@pytest.mark.parametrize(
    ("selection", "projection", "used", "exponent", "learns"),
    [
        ("dynamic", "learned", "learned", 2, True),
        ("dynamic", "residual", "residual", 3, True),
        ("dynamic", "none", "none", 3, True),
        ("fixed", "learned", "none", 3, False),
        ("fixed", "residual", "residual", 3, True),
        ("all", "residual", "none", 2, False),
        ("last", "learned", "none", 2, False),
    ],
)
def test_what_a_selection_makes_of_a_projection(
    selection: SelectionName, projection: ProjectionName, used: str, exponent: int, learns: bool
) -> None:
    layers = (1,) if selection == "fixed" else ()
    model = ModelConfig(selection=selection, layers=layers, projection=projection)
    assert (model.used_projection, model.appearance_exponent, model.learns) == (used, exponent, learns)
    assert model.has_gates == (selection == "dynamic")


def test_layers_are_named_where_the_selection_takes_some_and_only_there() -> None:
    for wrong in ({"layers": (1,)}, {"selection": "fixed"}, {"selection": "last", "layers": (1,)}):
        with pytest.raises(InputError, match="give layers with selection 'fixed', and only with it"):
            ModelConfig(**wrong)  # type: ignore[arg-type]
