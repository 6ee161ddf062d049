"""The images' recipes are clean, run as nobody special, and install exactly the tested versions."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RECIPES = ["infra/Containerfile", "infra/mlflow/Containerfile"]
LOCKS = ["infra/requirements.lock", "infra/mlflow/requirements.lock"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipe_is_clean(recipe: str) -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / recipe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_careless_recipe_is_refused(recipe: str, tmp_path: Path) -> None:
    careless = tmp_path / "Containerfile"
    careless.write_text((ROOT / recipe).read_text() + "RUN cd /tmp && sudo pip install ray\n")
    done = subprocess.run([BIN / "hadolint", careless], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "DL3004" in done.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_image_runs_as_user_10001_with_hashed_packages(recipe: str) -> None:
    lines = (ROOT / recipe).read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert any("--require-hashes" in line for line in lines)
    copied = {line.split()[-2] for line in lines if line.startswith("COPY") and "--from" not in line}
    kept = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    assert copied <= kept, "the build would not find what it copies"


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.M))


@pytest.mark.parametrize("lock", LOCKS)
def test_an_image_installs_what_is_tested(lock: str) -> None:
    tested = pins("requirements.lock")
    installed = pins(lock)
    assert {name: found for name, found in installed.items() if tested.get(name) != found} == {}
    assert "pytest" not in installed and {"mlflow"} <= installed.keys()
    text = (ROOT / lock).read_text()
    assert "://" not in text and text.count("--hash=sha256:") >= len(installed)


@pytest.mark.parametrize("script", sorted((ROOT / "infra").rglob("*.sh")), ids=lambda script: script.name)
def test_shell_scripts_are_clean(script: Path) -> None:
    done = subprocess.run([BIN / "shellcheck", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
