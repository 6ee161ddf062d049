import subprocess
import sys

import pytest
import timm
import torch

from dhpf.model.backbone import load_backbone
from dhpf.model.lite0 import EfficientNetLite0


@pytest.mark.parametrize("side", [96, 97, 224])
@torch.no_grad()
def test_it_computes_to_the_bit_what_timms_network_computes(side: int) -> None:
    torch.manual_seed(0)
    theirs, ours = timm.create_model("tf_efficientnet_lite0").eval(), EfficientNetLite0().eval()
    state = theirs.state_dict()
    names = list(ours.state_dict())
    assert names == list(state)[: len(names)]
    assert all(name.startswith(("conv_head", "bn2", "classifier")) for name in list(state)[len(names) :])
    ours.load_state_dict({name: state[name] for name in names})
    images = torch.randn(2, 3, side, side)
    assert torch.equal(ours(images), theirs.blocks(theirs.bn1(theirs.conv_stem(images))))


def test_a_seed_gives_what_follows_as_when_timm_built_the_network_and_named_its_weights() -> None:
    torch.manual_seed(5)
    for _ in range(2):
        timm.create_model("tf_efficientnet_lite0")
    expected = torch.rand(9)
    torch.manual_seed(5)
    load_backbone("efficientnet_lite0")
    assert torch.equal(torch.rand(9), expected)


def test_matching_with_it_imports_no_library_of_networks_and_no_compiler() -> None:
    script = """
import sys
import numpy as np
from dhpf.matcher import Matcher
Matcher().match(*np.random.default_rng(0).integers(0, 255, (2, 90, 90, 3), dtype=np.uint8))
print([name for name in ("timm", "torchvision", "torch._dynamo") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
