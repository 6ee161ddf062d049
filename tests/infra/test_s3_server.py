"""The S3 server for tests and benchmarks, served by a process that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

SERVING = """
import os, sys, time
from pathlib import Path
from infra.s3_server import served_bucket
os.environ.update(AWS_ACCESS_KEY_ID="one", AWS_SECRET_ACCESS_KEY="two")
with served_bucket("photos", {"accessKey": "one", "secretKey": "two"}, Path(sys.argv[1])) as bucket:
    print(bucket.server.pid, flush=True)
    time.sleep(600)
"""


def test_the_server_ends_with_the_process_that_serves(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    serving = subprocess.Popen(
        [sys.executable, "-c", SERVING, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert serving.stdout is not None
    server = psutil.Process(int(serving.stdout.readline()))
    assert server.is_running() and "weed" in server.name()
    serving.kill()
    serving.wait()
    server.wait(timeout=60)
