"""The kernels compile for GPUs that are not here: the interpreter runs what the compiler would refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMPILE = """
import json
import re
import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

class AbsentGPU:
    def get_current_target(self):
        return GPUTarget("cuda", int(sys.argv[1]), 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

driver.set_active(AbsentGPU())
from dhpf.model.engines import triton_kernels as kernels

ints, longs, bytes_, floats = (torch.zeros(16, dtype=d) for d in (torch.int32, torch.int64, torch.int8, torch.float32))
channels = kernels.Channels(ints, longs, ints, 7)
coarse = kernels.Coarse(floats, 1189, ints, ints, ints, floats)
lengths, votes = kernels.Lengths(floats, floats), kernels.CellVotes(floats, floats)
rows, grid = kernels.ROW_WARPS, (60, 64)
calls = {
    "multiply": ((channels, floats, 3600, 128), kernels.WARPS),
    "spread_targets": ((coarse, floats, 1, 15, *grid, 16), rows),
    "make_appearance": ((floats, coarse, lengths, votes, floats, True, 3, 2, *grid, 16), rows),
    "find_maxima": ((floats, floats, floats, longs, floats, *grid), rows),
    "find_filtered": ((floats, floats, bytes_, floats, floats, longs, floats, 60, 4096), rows),
}
found = {}
for name, (arguments, warps) in calls.items():
    kernel = getattr(kernels, name).warmup(*arguments, grid=(1,), num_warps=warps)
    ptx = kernel.asm["ptx"]
    found[name] = {"atomic": re.search(r"\\b(atom|red)\\.", ptx) is not None, "shared": kernel.metadata.shared,
                   "code": len(kernel.asm["cubin"])}
print(json.dumps(found))
"""


def compiled(capability: int, cache: Path) -> dict[str, dict[str, Any]]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", COMPILE, str(capability)]
    root = Path(__file__).parents[4]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_without_atomics(capability: int, tmp_path: Path) -> None:
    found = compiled(capability, tmp_path)
    assert len(found) == 5
    for name, kernel in found.items():
        assert kernel["code"] > 0, name
        assert not kernel["atomic"], f"{name}: results would depend on the order of additions"
        assert kernel["shared"] <= 99 * 1024, f"{name}: more shared memory than every GPU of today gives"
