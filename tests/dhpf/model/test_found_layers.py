"""Layers that are found in networks of timm and torchvision, with random weights."""

import copy
from pathlib import Path

import pytest
import torch

from dhpf.checkpoint import build_network, load_network, save_network
from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.model.backbone import Backbone, architecture_of, load_backbone


def drawn(backbone: str, folder: Path) -> Path:
    """A file with the whole state dict of a network with random weights, its head included."""
    torch.manual_seed(0)
    path = folder / "weights.pt"
    torch.save(architecture_of(backbone).build().state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("backbone", "widths", "sides"),
    [
        ("timm:resnet18", [64] * 3 + [128] * 2 + [256] * 2 + [512] * 2, [32] * 3 + [16] * 2 + [8] * 2 + [4] * 2),
        (
            "timm:mobilenetv3_small_050",
            [16, 8, 16, 16, *[24] * 5, *[48] * 3],
            [64, 32, 16, 16, *[8] * 5, 4, 4, 4],
        ),
        ("timm:convnext_atto", [40] * 3 + [80] * 2 + [160] * 6 + [320] * 2, [32] * 3 + [16] * 2 + [8] * 6 + [4] * 2),
        ("torchvision:squeezenet1_1", [64, 128, 128, 256, 256, 384, 384, 512, 512], [31, 31, 31, 15, 15, 7, 7, 7, 7]),
        ("torchvision:densenet121", [64, 256, 512, 1024, 1024], [32, 32, 16, 8, 4]),
        ("torchvision:alexnet", [64, 192, 384, 256, 256], [31, 15, 7, 7, 7]),
    ],
)
def test_layers_are_the_stem_and_each_block(backbone: str, widths: list[int], sides: list[int], tmp_path: Path) -> None:
    found = load_backbone(backbone, str(drawn(backbone, tmp_path)))
    maps = found(torch.zeros(2, 3, 128, 128, dtype=torch.uint8))
    assert [tuple(m.shape) for m in maps] == [(2, w, s, s) for w, s in zip(widths, sides, strict=True)]
    assert list(found.widths) == widths and len(found) == len(widths)


def test_layers_are_what_the_network_computes_and_what_lies_behind_is_not_run(tmp_path: Path) -> None:
    weights = drawn("timm:resnet18", tmp_path)
    found = load_backbone("timm:resnet18", str(weights))
    network = architecture_of("timm:resnet18").build().eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    normalised = (images / 255 - found.mean) / found.std
    with torch.no_grad():
        expected = network.forward_features(normalised)
        stem = network.maxpool(network.act1(network.bn1(network.conv1(normalised))))
    maps = found(images)
    assert torch.allclose(maps[-1], expected, atol=1e-4) and torch.allclose(maps[0], stem, atol=1e-5)
    some = found(images, last_layer=3)
    assert len(some) == 4 and torch.equal(some[3], maps[3])
    assert not any(name.startswith("layers.network.fc") for name in found.state_dict())


def test_a_model_of_a_found_backbone_is_saved_and_loaded(tmp_path: Path) -> None:
    weights = str(drawn("timm:convnext_atto", tmp_path))
    network = build_network(ModelConfig(backbone="timm:convnext_atto", weights=weights, image_side=96))
    save_network(network, tmp_path / "model.safetensors")
    again = load_network(tmp_path / "model.safetensors", weights=weights)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        one, other = (n(images[:1], images[1:]).correlation for n in (network, again))
    assert torch.equal(one, other)


def test_a_built_in_backbone_has_the_layers_that_are_found_in_its_network(tmp_path: Path) -> None:
    weights = str(drawn("timm:tf_efficientnet_lite0", tmp_path))
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    built_in, found = (
        load_backbone(name, weights)(images) for name in ("efficientnet_lite0", "timm:tf_efficientnet_lite0")
    )
    for ours, theirs in zip(built_in, found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("backbone", ["timm:vit_tiny_patch16_224", "torchvision:swin_t"])
def test_what_is_no_cnn_is_refused_in_a_sentence(backbone: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^model.backbone: {backbone} is no CNN: [^\n]*$"):
        load_backbone(backbone, str(tmp_path / "not-reached.pt"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not those of backbone 'timm:resnet34'; entry"):
        load_backbone("timm:resnet34", str(drawn("timm:resnet18", tmp_path)))


def test_a_found_backbone_learns_nothing_and_can_be_copied(tmp_path: Path) -> None:
    found = load_backbone("torchvision:squeezenet1_1", str(drawn("torchvision:squeezenet1_1", tmp_path)))
    assert isinstance(found.train(), Backbone) and not any(m.training for m in found.modules())
    assert not any(p.requires_grad for p in found.parameters())
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    assert all(torch.equal(a, b) for a, b in zip(copy.deepcopy(found)(images), found(images), strict=True))
