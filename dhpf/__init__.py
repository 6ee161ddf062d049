"""Dynamic Hyperpixel Flow: semantic correspondence of points between images.

The names that most users need can be imported from here: `from dhpf import Matcher`. Each name is imported from its
module when it is first used, so that importing the package, as every command does, costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dhpf.config import ModelConfig as ModelConfig
    from dhpf.errors import InputError as InputError
    from dhpf.images import ImageError as ImageError
    from dhpf.matcher import Matcher as Matcher
    from dhpf.records import Correspondences as Correspondences
    from dhpf.records import PairRecord as PairRecord

_MODULES = {
    "Correspondences": "dhpf.records",
    "ImageError": "dhpf.images",
    "InputError": "dhpf.errors",
    "Matcher": "dhpf.matcher",
    "ModelConfig": "dhpf.config",
    "PairRecord": "dhpf.records",
}

__all__ = ["Correspondences", "ImageError", "InputError", "Matcher", "ModelConfig", "PairRecord"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'dhpf' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_MODULES[name]), name)
