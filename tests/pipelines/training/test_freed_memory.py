"""Freed memory that lies between blocks still in use is returned; tested in a process of its own."""

import subprocess
import sys

import pytest

HOLES = """
import re, sys, torch
from pathlib import Path
from dhpf.pipelines.training.freed_memory import return_freed_memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3

if sys.argv[1] == "returned":
    return_freed_memory()
torch.ones(30 << 18).sum()  # from a freed block of this size glibc learns to keep such blocks
before = resident()
blocks = [torch.ones(2 << 18) for _ in range(200)]  # 2 MiB each
blocks = blocks[::50]
print(resident() - before)
"""


@pytest.mark.parametrize(("way", "least", "most"), [("kept", 200, 450), ("returned", 0, 40)])
def test_blocks_between_living_ones_go_back_to_the_system(way: str, least: float, most: float) -> None:
    done = subprocess.run([sys.executable, "-c", HOLES, way], capture_output=True, text=True, check=True)
    assert least <= float(done.stdout) <= most
