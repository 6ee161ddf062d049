import subprocess
import sys

import pytest

from dhpf.backbone_names import BUILT_IN_BACKBONES, require_backbone
from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.model.backbone import ARCHITECTURES


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
