"""Finds the file that a model's `weights` setting names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dhpf.errors import InputError

PACKAGE = "package:"


def located_weights(weights: str | Path) -> Path:
    """The path of a weights file.

    Args:
        weights: a path, or "package:NAME/PATH" for a file that the installed Python package NAME brings; nothing of
            the package is run.

    Raises:
        InputError: there is no such package, or no such file.
    """
    text = str(weights)
    if not text.startswith(PACKAGE):
        path = Path(weights)
    else:
        name, _, inside = text.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"no weights file {text!r}: no package {name!r} is installed; write package:NAME/PATH")
        path = Path(next(iter(spec.submodule_search_locations))) / inside
    if not path.is_file():
        raise InputError(f"no weights file {text!r}")
    return path
