"""Ray's launcher takes our file, and what it starts asks for a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[2] / "infra" / "ray-launcher" / "cluster.yaml"


def launcher_file() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def test_the_launcher_takes_the_file() -> None:
    validate_config(prepare_config(launcher_file()))


@pytest.mark.parametrize("misspelt", ["max_worker", "head_start_ray_command", "setup_command"])
def test_the_launcher_refuses_a_misspelt_field(misspelt: str) -> None:
    wrong = launcher_file() | {misspelt: []}
    with pytest.raises(Exception, match=misspelt):
        validate_config(prepare_config(wrong))


def test_every_start_asks_for_a_token() -> None:
    prepared = prepare_config(launcher_file())
    for commands in (prepared["head_start_ray_commands"], prepared["worker_start_ray_commands"]):
        starts = [command for command in commands if "ray start" in command]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=" in starts[0]
    assert "--dashboard-host=127.0.0.1" in " ".join(prepared["head_start_ray_commands"])
