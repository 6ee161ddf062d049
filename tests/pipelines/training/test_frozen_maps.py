import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.training.frozen_maps import FrozenMaps, TrainingImage, maps_folder


@pytest.fixture(scope="module")
def network() -> HyperpixelNetwork:
    return build_network(ModelConfig(selection="fixed", layers=(2, 8), image_side=96))


def image(seed: int, mirrored: bool = False) -> TrainingImage:
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return TrainingImage(str(seed), f"digest of {seed}", mirrored, buffer.getvalue)


def test_kept_maps_are_those_of_the_backbone(network: HyperpixelNetwork, tmp_path: Path) -> None:
    some = [image(1), image(2), image(1, mirrored=True), image(1)]
    maps = FrozenMaps(network, tmp_path, 10**9)
    computed = maps.of(some)
    expected = network.extract(torch.stack([i.square(96) for i in some]))
    for ours, theirs in zip(computed, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert (maps.num_computed, maps.num_read) == (3, 0)
    again = FrozenMaps(network, tmp_path, 10**9)
    assert all(torch.equal(a, b) for a, b in zip(again.of(some), computed, strict=True))
    assert (again.num_computed, again.num_read) == (0, 3)


def test_an_image_whose_maps_are_kept_is_not_read_again(network: HyperpixelNetwork, tmp_path: Path) -> None:
    def unreadable() -> bytes:
        raise AssertionError("read again")

    first = FrozenMaps(network, tmp_path, 10**9).of([image(1)])
    again = FrozenMaps(network, tmp_path, 10**9).of([dataclasses.replace(image(1), read=unreadable)])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_budget_holds(network: HyperpixelNetwork, tmp_path: Path) -> None:
    size = sum(4 * m.numel() for m in network.extract(torch.zeros(1, 3, 96, 96, dtype=torch.uint8)))
    maps = FrozenMaps(network, tmp_path, 2 * size)
    maps.of([image(n) for n in range(4)])
    assert len(list(tmp_path.glob("*.maps"))) == 2
    maps.of([image(n) for n in range(4)])
    assert (maps.num_computed, maps.num_read) == (6, 2)
    nothing = FrozenMaps(network, tmp_path / "none", 0)
    nothing.of([image(0)])
    assert not (tmp_path / "none").exists()


def test_half_of_the_bits_take_half_of_the_disk(network: HyperpixelNetwork, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        maps = FrozenMaps(network, tmp_path / precision, 10**9, precision)
        computed, kept = maps.of([image(1)]), maps.of([image(1)])
        assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(computed, kept, strict=True))
    whole, half = (FrozenMaps(network, tmp_path / p, 10**9, p).of([image(1)]) for p in ("float32", "bfloat16"))
    for a, b in zip(whole, half, strict=True):
        assert 1e-4 < (a - b).norm() / a.norm() < 5e-2, "rounded, and no worse"
    sizes = [next((tmp_path / p).iterdir()).stat().st_size for p in ("float32", "bfloat16")]
    assert 1.9 < sizes[0] / sizes[1] < 2.1


@pytest.mark.parametrize("place", [0, 10, 2000, -1, None])
def test_a_damaged_file_is_computed_again(network: HyperpixelNetwork, tmp_path: Path, place: int | None) -> None:
    first = FrozenMaps(network, tmp_path, 10**9).of([image(1)])
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if place is not None:
        content[place] ^= 1
    path.write_bytes(bytes(content if place is not None else content[:100]))
    maps = FrozenMaps(network, tmp_path, 10**9)
    assert all(torch.equal(a, b) for a, b in zip(maps.of([image(1)]), first, strict=True))
    assert maps.num_computed == 1
    assert FrozenMaps(network, tmp_path, 10**9)._read(image(1).key) is not None


def test_the_folder_goes_when_all_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyError), maps_folder("a") as folder:
        folder.mkdir(parents=True)
        raise KeyError
    assert folder.exists(), "the next attempt finds it"
    with maps_folder("a") as folder:
        pass
    assert not folder.exists()
