import pytest

from dhpf.config import ModelConfig, SupervisionConfig, nearest_name
from dhpf.errors import InputError


def test_an_exponent_that_is_given_is_taken() -> None:
    assert ModelConfig(selection="fixed", layers=(3,), exponent=2).appearance_exponent == 2


def test_published_layers_by_name() -> None:
    config = ModelConfig(backbone="resnet101", selection="fixed", layers="spair-71k")
    assert config.fixed_layers == (0, 8, 20, 21, 26, 28, 29, 30)
    with pytest.raises(InputError, match="unknown value 'spair-71k'"):
        ModelConfig(backbone="resnet50", selection="fixed", layers="spair-71k")


@pytest.mark.parametrize(
    "wrong",
    [
        {"backbone": "resnet51"},
        {"selection": "dynamical"},
        {"layers": (1,)},
        {"selection": "fixed"},
        {"exponent": 0},
        {"image_side": 8},
        {"projection_divisor": 0},
        {"hough_bins": "old"},
    ],
)
def test_what_makes_no_model(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="model."):
        ModelConfig(**wrong)  # type: ignore[arg-type]


def test_supervision_ranges() -> None:
    with pytest.raises(InputError, match="selection_rate"):
        SupervisionConfig(selection_rate=0)
    with pytest.raises(InputError, match="kind"):
        SupervisionConfig(kind="none")  # type: ignore[arg-type]


def test_the_nearest_name_is_suggested() -> None:
    assert nearest_name("epoch", ["epochs", "seed"]).startswith("did you mean 'epochs'?")
    assert nearest_name("zzz", ["b", "a"]) == "choices: a, b"
