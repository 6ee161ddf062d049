import pytest
import skimage.data
import torch

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.frame import to_square
from dhpf.model.network import HyperpixelNetwork


@pytest.fixture(scope="session")
def squares() -> torch.Tensor:
    photos = [skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket()]  # type: ignore[no-untyped-call]
    return torch.stack([to_square(photo, 240) for photo in photos])


@pytest.fixture(scope="session")
def dynamic() -> HyperpixelNetwork:
    torch.manual_seed(3)
    return build_network(ModelConfig(projection_divisor=2))
