import hashlib
import io
import threading

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.images import ImageError
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.blocks.caution import Caution, Step
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.block_source import OpenBlock
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.describing import DECODED_AHEAD, describe_block
from dhpf.records import PairRecord


@pytest.fixture(scope="module")
def network() -> HyperpixelNetwork:
    return ModelSource(ModelConfig(selection="fixed", layers=(3, 11))).load(Resources())


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()[number * 8 : 90 + number * 8, :120]).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {f"{number}.png": png(number) for number in range(3)} | {"broken.png": b"no image"}


def read(image: str) -> bytes:
    if image not in FILES:
        raise ImageError(f"image {image}: no such file")
    return FILES[image]


def block_of(*pairs: tuple[str, str], mirrored: bool = False) -> OpenBlock:
    records = [PairRecord(str(number), "", *pair, mirrored=mirrored) for number, pair in enumerate(pairs)]
    return OpenBlock(range(len(pairs)), records, read)


@torch.inference_mode()
def test_each_image_is_described_once_and_a_broken_one_says_why(network: HyperpixelNetwork) -> None:
    block = block_of(("0.png", "1.png"), ("1.png", "broken.png"), ("0.png", "gone.png"), ("1.png", "0.png"))
    described = describe_block(network, block)
    assert described.places == {("0.png", False): 0, ("1.png", False): 1}
    assert len(described.features) == 2
    assert described.facts["0.png"].size == (120, 90)
    assert described.facts["0.png"].sha256 == hashlib.sha256(FILES["0.png"]).hexdigest()
    assert "broken.png" in described.facts["broken.png"].failure
    assert described.facts["gone.png"].failure == "image gone.png: no such file"


@torch.inference_mode()
def test_a_mirrored_image_is_another_one(network: HyperpixelNetwork) -> None:
    plain, mirrored = (describe_block(network, block_of(("0.png", "1.png"), mirrored=m)) for m in (False, True))
    assert list(mirrored.places) == [("0.png", True), ("1.png", True)]
    assert not torch.equal(plain.features.maps[0], mirrored.features.maps[0])


@torch.inference_mode()
def test_an_images_features_do_not_depend_on_its_block(network: HyperpixelNetwork) -> None:
    alone = describe_block(network, block_of(("0.png", "1.png"))).features
    others = describe_block(network, block_of(("2.png", "1.png"), ("0.png", "2.png"))).features
    for one, other in zip(alone.maps, others.maps, strict=True):
        assert np.array_equal(one[1].numpy(), other[1].numpy())


@torch.inference_mode()
def test_a_block_without_any_usable_image_is_described_all_the_same(network: HyperpixelNetwork) -> None:
    described = describe_block(network, block_of(("broken.png", "gone.png")))
    assert described.places == {} and len(described.facts) == 2


@torch.inference_mode()
def test_what_is_left_out_is_not_read(network: HyperpixelNetwork) -> None:
    steps: list[Step] = []
    caution = Caution({"broken.png": "ended its worker"}, on_step=steps.append)
    described = describe_block(network, block_of(("broken.png", "0.png"), ("0.png", "1.png")), caution=caution)
    assert described.facts["broken.png"].failure == "ended its worker"
    assert steps == [Step.of_image("0.png"), Step.of_image("1.png")]


@torch.inference_mode()
def test_the_next_images_are_read_while_the_network_looks_at_one(network: HyperpixelNetwork) -> None:
    several = threading.Barrier(min(DECODED_AHEAD, 3))

    def read_together(image: str) -> bytes:
        several.wait(timeout=30)  # breaks if they are read one after the other
        return read(image)

    block = block_of(("0.png", "1.png"), ("1.png", "2.png"))
    assert len(describe_block(network, OpenBlock(block.numbers, block.pairs, read_together)).places) == 3


@torch.inference_mode()
def test_half_precision_halves_the_memory(network: HyperpixelNetwork) -> None:
    block = block_of(("0.png", "1.png"))
    whole, half = (describe_block(network, block, kind).features for kind in ("float32", "float16"))
    assert half.num_bytes < 0.6 * whole.num_bytes
