"""Which code made an output."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import dhpf
import pipelines


@lru_cache(maxsize=1)
def code_version() -> str:
    """The package's version and a digest of its source files: the same wherever the same code is installed."""
    digest = hashlib.sha256()
    for package in (dhpf, pipelines):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return f"{version('dhpf')}+{digest.hexdigest()[:12]}"
