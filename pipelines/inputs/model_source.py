"""Names the model of a stage: a small value that is sent to workers, which load it, and is written into plans."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dhpf.checkpoint import build_network, load_network
from dhpf.config import ModelConfig
from dhpf.manifest import canonical_json
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.config import FeatureType, Resources
from dhpf.storage import FileLocation, Location, location_of
from dhpf.storage.copies import local_file


@dataclass(frozen=True)
class ModelSource:
    """An untrained model by its configuration, or a trained one by its checkpoint.

    Attributes:
        config: of an untrained model; None for a checkpoint.
        checkpoint: path or s3:// URI of a checkpoint; None for an untrained model.
        weights: file with the backbone's weights that the user's settings name, for a checkpoint that was learned on
            those of a file; a path in the checkpoint itself is not followed.
        version: models:/NAME/VERSION of a model from the registry, never an alias, whose meaning changes; else "".
    """

    config: ModelConfig | None = None
    checkpoint: str | None = None
    version: str = ""
    weights: str | None = None

    def load(self, resources: Resources) -> HyperpixelNetwork:
        """The network, ready for inference, in a process that may use these resources.

        It lies on a GPU if one is reserved and the machine has one. A machine without a GPU, on which a run is only
        estimated or judged, uses its CPU.
        """
        torch.set_num_threads(max(1, int(resources.cpus)))
        device = "cuda" if resources.gpus and torch.cuda.is_available() else "cpu"
        return self.network().to(device)

    def network(self) -> HyperpixelNetwork:
        """The network, on the CPU."""
        if self.config is not None:
            return build_network(self.config)
        return load_network(self.checkpoint_file(), own=self.weights)

    def checkpoint_file(self) -> Path:
        """The checkpoint as a file of this machine; an object is fetched once."""
        return local_file(location_of(str(self.checkpoint)))

    def identity(self) -> dict[str, Any]:
        """What decides the model's answers, as JSON values for a plan."""
        if self.config is not None:
            return {"config": self.config.settings()}
        digest = hashlib.sha256(location_of(str(self.checkpoint)).read()).hexdigest()
        return {"checkpoint_sha256": digest, "version": self.version}

    def name(self) -> str:
        """The model's name in rows of tables: models:/NAME/VERSION, or the sha256 of its `identity`."""
        return self.version or hashlib.sha256(canonical_json(self.identity())).hexdigest()

    def bytes_per_image(self, feature_type: FeatureType = "float32") -> int:
        """Memory that the features of one image take."""
        network = self.load(Resources(cpus=torch.get_num_threads()))
        side = network.config.image_side
        with torch.inference_mode():
            blank = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=network.backbone.mean.device)
            features = network.describe(blank)
        return (features.in_half_precision() if feature_type == "float16" else features).num_bytes


def checkpoint_for_workers(path: Path, folder: Location) -> str:
    """Where workers on any machine find a checkpoint of this one.

    Args:
        folder: of the workflow. A folder is shared by all machines, and so is the path; to a bucket it is uploaded.
    """
    if isinstance(folder, FileLocation):
        return str(path.resolve())
    place = folder / "models" / hashlib.sha256(path.read_bytes()).hexdigest() / path.name
    if not place.exists():
        place.put_file(path)
    return str(place)
