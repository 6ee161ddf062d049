"""Names of backbones: the built-in ones, and `timm:NAME` or `torchvision:NAME` for any CNN of these libraries.

A library is asked for its names only where one of them is looked for: importing it takes seconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from dhpf.errors import InputError

BUILT_IN_BACKBONES = ("efficientnet_lite0", "resnet50", "resnet101")


def _timm_names() -> Collection[str]:
    import timm

    return [*timm.list_models(), *timm.list_pretrained()]


def _torchvision_names() -> Collection[str]:
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


LIBRARIES: Mapping[str, Callable[[], Collection[str]]] = MappingProxyType(
    {"timm": _timm_names, "torchvision": _torchvision_names}
)
"""What may stand before the colon, and what gives the names that may stand behind it."""


def split_name(backbone: str) -> tuple[str, str]:
    """(library, name in it) of a backbone; a built-in one is of library ""."""
    library, _, name = backbone.rpartition(":")
    return library, name


def require_backbone(backbone: str) -> None:
    """Raises InputError, with the nearest names, unless there is a backbone of that name."""
    library, name = split_name(backbone)
    if library and library not in LIBRARIES:
        raise InputError(f"model.backbone: unknown library {library!r} in {backbone!r}; choices: {_listed(LIBRARIES)}")
    names = LIBRARIES[library]() if library else BUILT_IN_BACKBONES
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    choices = f"{library} has {len(names)} networks" if library else f"choices: {_listed(names)}, {_listed(_PATTERNS)}"
    raise InputError(f"model.backbone: unknown value {backbone!r}; {hint}{choices}")


_PATTERNS = tuple(f"{library}:NAME" for library in LIBRARIES)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
