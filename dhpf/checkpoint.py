"""Checkpoints: learned parameters in one safetensors file, whose header holds the model's configuration."""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from dhpf.config import PACKAGE, ModelConfig
from dhpf.errors import InputError
from dhpf.model.backbone import load_backbone
from dhpf.model.network import HyperpixelNetwork
from dhpf.model.weight_files import misfit, read_safetensors, read_state_dict, require_finite
from dhpf.regular_files import is_file

FORMAT = "dhpf-checkpoint-1"

_FIELD_TYPES = {
    **dict.fromkeys(("backbone", "selection", "projection", "hough_bins", "features", "votes", "readout"), (str,)),
    **dict.fromkeys(("projection_divisor", "image_side", "joint_side"), (int,)),
    "weights": (str, type(None)),
    "layers": (str, list),
    "exponent": (int, type(None)),
}
"""What the fields of a model are in a checkpoint's JSON."""

_PUBLISHED_NAMES = (("reduction_ffns.", "projections."), ("gumbel_ffns.", "selector.gates."))


def build_network(config: ModelConfig) -> HyperpixelNetwork:
    """A network with the backbone's weights and, for a dynamic selection, freshly drawn gates and projections.

    From then on this process's convolutions on a GPU are in float32: TF32, torch's default there, moves matches.
    """
    torch.backends.cudnn.allow_tf32 = False
    return HyperpixelNetwork(config, load_backbone(config.backbone, config.weights)).eval()


def save_network(network: HyperpixelNetwork, path: str | Path) -> None:
    """Writes what the network has learned, and what it is, to a safetensors file."""
    header = {
        "format": FORMAT,
        "model": json.dumps(network.config.settings(), sort_keys=True),
        "backbone_sha256": network.backbone.fingerprint,
    }
    learned = {k: v.detach().cpu().contiguous() for k, v in network.learned_state().items()}
    safetensors.torch.save_file(learned, str(path), metadata=header)


def load_network(path: str | Path, weights: str | None = None, own: str | None = None) -> HyperpixelNetwork:
    """Reads a checkpoint of ours, or a published one by its own key names.

    Args:
        path: a file that `save_network` wrote, or a published state dict (torch or safetensors) whose backbone is
            recognised by its number of layers; published weights get the legacy Hough bins that they were made with.
        weights: a file with the backbone's weights, instead of those that the checkpoint names.
        own: the same, but used only where the checkpoint names a file. That file itself is never opened: whoever made
            the checkpoint chose its path. A file of an installed package is, as "package:NAME/PATH".

    Raises:
        InputError: the file is missing, no checkpoint, of another backbone than the one at hand, or it needs a file of
            weights that was not given.
    """
    header = _header(Path(path))
    if header is None:
        return _load_published(Path(path), weights)
    config = _model_config(header, path)
    if weights is None and config.weights is not None and not config.weights.startswith(PACKAGE):
        weights = own
        if weights is None:
            raise InputError(
                f"checkpoint {path}: learned on {config.backbone} weights of the file {config.weights!r}; a path in a "
                "checkpoint is not followed: give your file with these weights, as --weights, model.weights of the "
                "workflow, or the argument weights"
            )
    if weights is not None:
        config = dataclasses.replace(config, weights=weights)
    network = build_network(config)
    if network.backbone.fingerprint != header.get("backbone_sha256"):
        raise InputError(
            f"checkpoint {path}: learned on other {config.backbone} weights than those at hand; "
            "give the file with those weights"
        )
    _load_learned(network, read_safetensors(Path(path), f"checkpoint {path}"), path)
    return network


def _header(path: Path) -> dict[str, str] | None:
    """The header of a checkpoint of ours; None for any other file."""
    if not is_file(path):
        raise InputError(f"checkpoint {path}: no such file")
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
    except Exception as error:  # see read_safetensors
        raise InputError(f"checkpoint {path}: not a safetensors file ({error})") from error
    return header if header.get("format") == FORMAT else None


def _model_config(header: dict[str, str], path: str | Path) -> ModelConfig:
    try:
        fields: dict[str, Any] = json.loads(header["model"])
        for name, value in fields.items():
            if type(value) not in _FIELD_TYPES[name]:
                raise ValueError(f"{name} is {str(value)[:60]!r}")
        if isinstance(fields.get("layers"), list):
            fields["layers"] = tuple(map(operator.index, fields["layers"]))
        return ModelConfig(**fields)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"checkpoint {path}: its header describes no model ({error})") from error


def _load_published(path: Path, weights: str | None) -> HyperpixelNetwork:
    state = read_state_dict(path)
    num_layers = 1 + max((int(m[1]) for k in state if (m := re.match(r"reduction_ffns\.(\d+)\.", k))), default=-1)
    if num_layers == 0:
        raise InputError(
            f"checkpoint {path}: neither a checkpoint of this project nor a published one (no key reduction_ffns.*)"
        )
    names = {17: "resnet50", 34: "resnet101"}
    if num_layers not in names:
        raise InputError(f"checkpoint {path}: {num_layers} layers; published ones have 17 (resnet50) or 34 (resnet101)")
    network = build_network(ModelConfig(backbone=names[num_layers], weights=weights, hough_bins="legacy"))
    _load_learned(network, {_our_name(k): v for k, v in state.items()}, path)
    return network


def _our_name(key: str) -> str:
    for published, ours in _PUBLISHED_NAMES:
        key = key.replace(published, ours)
    return key


def _load_learned(network: HyperpixelNetwork, state: dict[str, Tensor], path: str | Path) -> None:
    expected = network.learned_state()
    for key, value in expected.items():
        if key.endswith("num_batches_tracked"):
            continue
        what = misfit(state.get(key), value)
        if what is not None:
            model = f"{network.config.selection} {network.config.backbone} model"
            raise InputError(f"checkpoint {path}: not of a {model}; {key!r} {what}")
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise InputError(f"checkpoint {path}: holds {unknown[0]!r}, which this model does not have")
    require_finite(state, f"checkpoint {path}")
    network.load_state_dict(state, strict=False)
