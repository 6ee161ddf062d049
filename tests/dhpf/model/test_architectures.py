import os
import subprocess
import sys
from pathlib import Path

from dhpf.model.architectures import IMAGENET_MEAN, IMAGENET_STD, architecture_of

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
