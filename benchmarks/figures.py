"""Writes the figures that benchmarks measure to a JSON file."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def write_figures(path: Path, figures: Mapping[str, Any], kept: str) -> None:
    """Writes figures to a JSON file; figures that it has already stay if their name begins with `kept`."""
    before = json.loads(path.read_text()) if path.is_file() else {}
    stay = {name: figure for name, figure in before.items() if name.startswith(kept) and name not in figures}
    path.write_text(json.dumps(dict(figures) | stay, indent=2) + "\n")
    print(f"written to {path}")


def compared(ours: float, published: float, ratio: float) -> dict[str, float]:
    """One figure: ours, the published way's and their ratio, rounded to two digits."""
    return {"ours": round(ours, 2), "published": round(published, 2), "ratio": round(ratio, 2)}


def machine() -> dict[str, Any]:
    """The machine that figures are measured on."""
    names = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    cpu = next(names, "").partition(":")[2].strip() or platform.processor()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"cpu": cpu, "torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}
