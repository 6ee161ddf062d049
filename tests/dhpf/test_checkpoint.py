import dataclasses
import os
import pickle
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from dhpf.checkpoint import FORMAT, build_network, load_network, save_network
from dhpf.config import ModelConfig, located_weights
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


def test_a_path_in_a_checkpoint_is_not_followed(tmp_path: Path) -> None:
    state, secret = build_timm_state(), tmp_path / "secret.safetensors"
    safetensors.torch.save_file(state, secret)
    config = ModelConfig(selection="fixed", layers=(5, 11), weights=str(secret))
    save_network(build_network(config), tmp_path / "m.safetensors")
    kept = secret.rename(tmp_path / "mine.safetensors")
    os.mkfifo(secret)
    wanted = (
        "learned on efficientnet_lite0 weights of the file '.*secret.safetensors'; .* not followed: give .*--weights"
    )
    with pytest.raises(InputError, match=wanted):
        load_network(tmp_path / "m.safetensors")
    for network in (
        load_network(tmp_path / "m.safetensors", weights=str(kept)),
        load_network(tmp_path / "m.safetensors", own=str(kept)),
    ):
        assert network.config == dataclasses.replace(config, weights=str(kept))


def test_a_users_own_weights_are_not_given_to_a_checkpoint_of_published_ones(saved: Path, tmp_path: Path) -> None:
    assert load_network(saved, own=str(tmp_path / "none.pth")).config.weights is None


@pytest.mark.parametrize("path", ["/etc/passwd", "../safetensors/x", "a/../../x"])
def test_a_file_of_a_package_lies_in_the_package(path: str) -> None:
    with pytest.raises(InputError, match="outside the package"):
        located_weights(f"package:timm/{path}")


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


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_refused(saved: Path, tmp_path: Path, number: float) -> None:
    def broken(state: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
        changed = state[key].clone()
        changed.view(-1)[-1] = number
        return state | {key: changed}

    with safe_open(saved, framework="pt") as file:
        header = file.metadata()
    state = safetensors.torch.load_file(saved)
    key = sorted(state)[-1]
    safetensors.torch.save_file(broken(state, key), tmp_path / "x.safetensors", metadata=header)
    with pytest.raises(InputError, match=f"x.safetensors: entry '{key}' holds a number that is not finite"):
        load_network(tmp_path / "x.safetensors")
    torch.save(broken(build_timm_state(), "conv_stem.weight"), tmp_path / "backbone.pth")
    with pytest.raises(InputError, match="backbone.pth: entry 'conv_stem.weight' holds a number that is not finite"):
        load_network(saved, weights=str(tmp_path / "backbone.pth"))


def test_whole_numbers_in_place_of_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        header = file.metadata()
    state = safetensors.torch.load_file(saved)
    key = next(key for key, value in state.items() if value.is_floating_point())
    safetensors.torch.save_file(state | {key: state[key].to(torch.int32)}, tmp_path / "x.safetensors", metadata=header)
    with pytest.raises(InputError, match=f"'{key}' holds int32, not float32"):
        load_network(tmp_path / "x.safetensors")


HEADERS = [
    b"[]",
    b"null",
    b"7",
    b'"text"',
    b"{" * 5000,
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e99]}}',
]


@pytest.mark.parametrize("content", [b"", b"\0", *(struct.pack("<Q", len(h)) + h for h in HEADERS), b"\xff" * 64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_any_bytes_end_in_a_sentence(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"x{suffix}: not a (torch or )?safetensors file"):
        load_network(path)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"model": "[]"},
        {"model": "null"},
        {"model": "{"},
        {"model": '{"backbone": 3}'},
        {"model": '{"layers": "deep"}'},
        {"model": '{"layers": [1e999]}'},
        {"model": '{"image_side": "wide"}'},
        {"model": '{"image_side": 1e999}'},
        {"model": '{"exponent": null}'},
        {"model": '{"weights": 7}'},
        {"model": '{"selection": []}'},
        {"model": '{"unknown": 1}'},
        {"model": "[" * 100_000},
    ],
)
def test_a_header_that_describes_no_model_is_refused(header: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata={"format": FORMAT} | header)
    with pytest.raises(InputError):
        load_network(path)
