"""The network with random weights, and the images, that benchmarks measure."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence

import torch
import torchvision

from dhpf.checkpoint import build_network
from dhpf.config import ModelConfig
from dhpf.frame import NUM_CELLS
from dhpf.model.engines.engine import BestCells, MatchEngine
from dhpf.model.features import ImageFeatures
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.matching.block_matching import MATCH_BATCH
from dhpf.pipelines.progress import CountedWork

NUM_KEYPOINT_CELLS = 60
"""Source cells whose match is asked for: about what 10 keypoints touch."""

BATCH_SIZE = MATCH_BATCH["cpu"]


class Subject:
    """A network with random weights and random images, matched from described images or from the images themselves.

    Attributes:
        gates: (1, L) half of the layers.
        wanted: (1, N) source cells whose match is asked for.
    """

    def __init__(self, backbone: str, num_images: int, device: str = "cpu") -> None:
        self.network = drawn_network(backbone).to(device)
        generator = torch.Generator().manual_seed(0)
        shape = (num_images, 3, 240, 240)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
        self.gates = torch.zeros(1, len(self.network.layers), device=device)
        self.gates[:, ::2] = 1
        self.wanted = torch.zeros(1, NUM_CELLS, dtype=torch.bool, device=device)
        self.wanted[:, :: NUM_CELLS // NUM_KEYPOINT_CELLS] = True

    @torch.inference_mode()
    def describe(self, num_images: int, at_once: int = 1) -> ImageFeatures:
        """The features of the first `num_images` images, described `at_once` in a batch."""
        batches = torch.split(self.images[:num_images], at_once)
        return ImageFeatures.concatenate([self.network.describe(batch) for batch in batches])

    @torch.inference_mode()
    def match(self, features: ImageFeatures, pairs: Sequence[tuple[int, int]], engine: MatchEngine) -> BestCells:
        """Matches pairs of described images; the cost includes the gates' decisions."""
        first, second = (features.gate_activations[list(side)] for side in zip(*pairs, strict=True))
        self.network.selector.decide(first, second)  # its cost; the layers are given, so that both ways use the same
        gates, wanted = (of_pair.expand(len(pairs), -1) for of_pair in (self.gates, self.wanted))
        return self.network.match_selected(features, features, pairs, gates, wanted, engine)

    @torch.inference_mode()
    def match_cold(self, engine: MatchEngine) -> BestCells:
        """Matches the first two images from pixels, as HyperpixelNetwork.match_images does, by the given gates."""
        network = self.network
        maps = network.extract(self.images[:2])
        activations = network.selector.activate(maps)
        network.selector.decide(activations[:1], activations[1:])  # its cost
        features = network.embed_layers(maps, activations, (self.gates[0] > 0).tolist())
        return network.match_selected(features, features, [(0, 1)], self.gates, self.wanted, engine)

    def all_pairs(self, num_images: int, engine: MatchEngine, title: str) -> float:
        """CPU ms per pair to describe `num_images` images and match all their pairs in an actor's batches."""
        pairs = list(itertools.combinations(range(num_images), 2))
        started = time.process_time()
        features = self.describe(num_images)
        with CountedWork(title, "pair", len(pairs)) as work:
            for first in range(0, len(pairs), BATCH_SIZE):
                batch = pairs[first : first + BATCH_SIZE]
                self.match(features, batch, engine)
                work.update(len(batch))
        return 1000 * (time.process_time() - started) / len(pairs)


def drawn_network(backbone: str) -> HyperpixelNetwork:
    """A dynamic network with random weights, scaled so that no value overflows."""
    torch.manual_seed(0)
    drawn = torchvision.models.get_model(backbone, weights=None)
    state = {k: v * 0.2 if k.endswith("bn3.weight") else v for k, v in drawn.state_dict().items()}
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(state, file.name)
        return build_network(ModelConfig(backbone=backbone, weights=file.name))
