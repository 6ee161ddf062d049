"""The version of the code, which records and rows name as what made them."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import dhpf

VERSION = "0.1.0"
"""Of the distribution, too: a constant, so that code that was uploaded and not installed knows it."""


@lru_cache(maxsize=1)
def code_version() -> str:
    """The package's version and a digest of its source files: the same wherever the same code is, installed or not."""
    digest = hashlib.sha256()
    for name, path in sorted(_source_files(Path(dhpf.__path__[0]))):
        digest.update(name.encode())
        digest.update(path.read_bytes())
    return f"{VERSION}+{digest.hexdigest()[:12]}"


def _source_files(package: Path) -> list[tuple[str, Path]]:
    """Python files by their path below the package; links are followed: in a checkout dhpf.pipelines is one."""
    folders = os.walk(package, followlinks=True)
    paths = (Path(folder, name) for folder, _, names in folders for name in names if name.endswith(".py"))
    return [(path.relative_to(package).as_posix(), path) for path in paths]
