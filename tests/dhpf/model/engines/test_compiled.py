"""The compiled engine in a process that may write nowhere around it: numba finds no place for what it keeps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[4]
STRANGER = 54321
"""A user's number that no machine has a name for."""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The library as a package that nobody may write, beside two images, in a folder that others may look into."""
    shutil.copytree(ROOT / "dhpf", tmp_path / "package" / "dhpf", ignore=shutil.ignore_patterns("__pycache__"))
    for folder, _, files in os.walk(tmp_path / "package"):
        Path(folder).chmod(0o555)
        for name in files:
            (Path(folder) / name).chmod(0o444)
    for number, name in enumerate(("a.png", "b.png")):
        Image.effect_mandelbrot((90, 90), (-2 + number / 9, -1.5, 1, 1.5), 100).convert("RGB").save(tmp_path / name)
    return tmp_path


def _run(installed: Path, *python: str, **variables: str) -> subprocess.CompletedProcess[str]:
    folder = installed / "of the stranger"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    command = [sys.executable, *python]
    if os.getuid() == 0:  # may go where root's own folders are closed, but write only what is its own
        command = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", *command]
        for parent in (installed, *list(installed.parents)[:3]):
            parent.chmod(parent.stat().st_mode | 0o111)
    variables |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed / "package"), "LC_ALL": "C"}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)


def test_a_process_with_nothing_around_it_matches(installed: Path) -> None:
    """No HOME, a user without a name, a package that cannot be written, no locale, no asserts."""
    own = installed / "tmp"
    own.mkdir()
    own.chmod(0o777)
    images = [str(installed / name) for name in ("a.png", "b.png")]
    match = ["-O", "-m", "dhpf.pipelines", "match", *images, "-o", "m.png", "--points", "40,40"]
    done = _run(installed, *match, TMPDIR=str(own))
    assert done.returncode == 0 and "1: 40,40 -> " in done.stdout, done.stderr
    (cache,) = own.glob("dhpf-numba-*")
    assert list(cache.rglob("*.nbi")), "compiled once for all processes"


def test_without_any_place_for_a_cache_each_process_compiles(installed: Path) -> None:
    closed = installed / "closed"
    closed.mkdir()
    folder = closed / f"dhpf-numba-{STRANGER}"  # another user's
    folder.mkdir(mode=0o777)
    script = "from dhpf.model.engines.compiled import CompiledEngine; print(CompiledEngine.__name__)"
    done = _run(installed, "-c", script, TMPDIR=str(closed), HOME=str(closed / "none"))
    assert done.stdout == "CompiledEngine\n", done.stderr
    assert not list(folder.iterdir()), "what others may write is never executed"
