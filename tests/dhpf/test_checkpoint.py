import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dhpf.checkpoint import build_network, load_network, save_network
from dhpf.config import ModelConfig
from dhpf.errors import InputError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    network = build_network(ModelConfig(projection_divisor=4, exponent=3))
    network.projections[2][1].running_mean.add_(0.5)
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_network(network, path)
    return path


def test_what_was_saved_comes_back(saved: Path) -> None:
    network = load_network(saved)
    assert network.config == ModelConfig(projection_divisor=4, exponent=3)
    assert torch.all(network.projections[2][1].running_mean == 0.5)
    assert not any(key.startswith("backbone") for key in safetensors.torch.load_file(saved))


def test_names_in_a_checkpoint_stay_as_they_are() -> None:
    """Files that were written before must load."""
    norm = {f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    gate = {f"selector.gates.16.{name}" for name in ("0.weight", "3.weight", *norm)}
    learned = {f"projections.16.{name}" for name in ("0.weight", *norm)}
    for config, names in (
        (ModelConfig(), gate | learned),
        (ModelConfig(projection="none"), gate),
        (ModelConfig(projection="residual"), gate | {"projections.16.mix.weight"}),
        (ModelConfig(selection="all"), set()),
    ):
        state = build_network(config).learned_state()
        assert {name for name in state if ".16." in name} == names
        assert len(state) == 17 * len(names)
    fixed = build_network(ModelConfig(selection="fixed", layers=(5, 11), projection="residual"))
    assert list(fixed.learned_state()) == ["projections.0.mix.weight", "projections.1.mix.weight"]


def test_a_checkpoint_of_other_backbone_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    other = {k: v + 0.01 for k, v in build_timm_state().items()}
    safetensors.torch.save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="other efficientnet_lite0 weights"):
        load_network(saved, weights=str(tmp_path / "other.safetensors"))


def build_timm_state() -> dict[str, torch.Tensor]:
    import timm

    return {k: v for k, v in timm.create_model("tf_efficientnet_lite0").state_dict().items() if v.is_floating_point()}


def published(num_layers: int) -> dict[str, torch.Tensor]:
    return {f"reduction_ffns.{n}.0.weight": torch.zeros(8, 64, 1, 1) for n in range(num_layers)}


def test_a_published_checkpoint_of_another_depth_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file(published(21), tmp_path / "p.safetensors")
    with pytest.raises(InputError, match="21 layers; published ones have 17"):
        load_network(tmp_path / "p.safetensors")


def test_a_published_checkpoint_with_wrong_shapes_is_refused(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    torch.save(resnet50().state_dict(), tmp_path / "r50.pth")
    safetensors.torch.save_file(published(17), tmp_path / "p.safetensors")
    with pytest.raises(InputError, match="not of a dynamic resnet50 model"):
        load_network(tmp_path / "p.safetensors", weights=str(tmp_path / "r50.pth"))


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_network(tmp_path / "none.safetensors")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no key reduction_ffns"):
        load_network(tmp_path / "x.safetensors")
    (tmp_path / "p.pt").write_bytes(pickle.dumps({"run": print}))
    with pytest.raises(InputError, match="never loaded"):
        load_network(tmp_path / "p.pt")
