"""SECURITY.md names tests that exist, and no command lets a secret out of its place."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from dhpf.pipelines.__main__ import main

ROOT = Path(__file__).parents[1]
KNOWN_BAD = {"mlflow": "3.18.0", "pyarrow": "14.0.0", "pillow": "10.2.0", "torch": "2.5.1", "webdataset": "0.2.100"}
"""Versions that cannot be installed, or that run code of files or write beyond buffers."""
CANARY = "Kanarienvogel"
SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "PGPASSWORD"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
)
BUCKET, SERVER = f"s3://{CANARY}:{CANARY}/{CANARY}@bucket/x", f"http://me:{CANARY}@127.0.0.1:9"
COMMANDS = (
    ["list"],
    ["describe", "quickstart"],
    ["describe", "quickstart", "--work", BUCKET],
    ["describe", "quickstart", "--data", BUCKET],
    ["describe", "quickstart", "--set", f"shard.store={BUCKET}"],
    ["describe", "quickstart", "--set", f"model.weights={BUCKET}"],
    ["describe", "quickstart", "--set", f"summary=see {SERVER}"],
    ["describe", BUCKET],
    ["describe", "quickstart", "--file", BUCKET],
    ["run", "quickstart", "--only", "shard", "--tracking", SERVER],
    ["run", "quickstart", "--address", f"http://{CANARY}:{CANARY}@head:8265"],
    ["models", "list", "--tracking", SERVER],
    ["track", "sync", "--tracking", SERVER],
    ["track", "sync"],
    ["pairs", BUCKET, "--dry-run"],
    ["match", BUCKET, BUCKET],
    ["submit", "quickstart", "--address", "http://127.0.0.1:9", "--work", "/w", "--tracking", SERVER],
    ["submit", "quickstart", "--address", f"http://me:{CANARY}@127.0.0.1:9", "--work", "s3://b/w"],
    ["doctor", "--tracking", SERVER],
)

RUN_ALL = """
import json, sys
from dhpf.pipelines.__main__ import main
for command in json.loads(sys.argv[1]):
    print(command[0], main(command))
"""


def test_every_control_that_is_named_has_its_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) >= 15
    missing = [f"{path}::{test}" for path, test in named if f"def {test}(" not in (ROOT / path).read_text()]
    assert missing == []


def test_no_command_lets_a_secret_out(tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    variables |= dict.fromkeys(SECRETS, CANARY) | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(COMMANDS)],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\w+ [02]$", done.stdout, re.M)) == len(COMMANDS), done.stdout
    assert CANARY not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not [path for path in files if CANARY.encode() in path.read_bytes()]


PRINTING = ("pipelines/commands/answers.py", "pipelines/progress.py", "pipelines/submission/doctor.py")
"""The files that print: what `shown` gives, and JSON of ASCII characters alone."""


def test_all_that_is_printed_is_printed_in_one_place() -> None:
    printing = re.compile(r"\bprint\(|\bConsole\(|\.echo\(|(?:stdout|stderr)\.(?:write|buffer)|StreamHandler\(")
    files = [path for room in ("dhpf", "pipelines") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 150
    found = {str(path.relative_to(ROOT)) for path in files if printing.search(path.read_text())}
    assert {path for path in found if not path.startswith("dhpf/pipelines/")} == set(PRINTING)


HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e"


def test_no_strangers_text_reaches_a_terminal_as_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    photos = tmp_path / f"photos{HOSTILE}"
    photos.mkdir()
    for name in ("a.png", f"b{HOSTILE}.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photos / name)
    (photos / f"c{HOSTILE}.svg").write_text("no image")
    pair_list, workflows = tmp_path / "pairs.csv", tmp_path / "w.yaml"
    pair_list.write_text(f"source,target,category\na.png,b{HOSTILE}.png,{HOSTILE}\n{HOSTILE},a.png,{HOSTILE}\n")
    workflows.write_text(json.dumps({HOSTILE: {"model": {}}, "w": {"summary": HOSTILE, "model": {}}}))
    with answering(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": HOSTILE}) as server:
        for command in (
            ["list", "--file", str(workflows)],
            ["describe", HOSTILE, "--file", str(workflows)],
            ["describe", "w", "--file", str(workflows)],
            ["describe", "w", "--file", HOSTILE],
            ["describe", "w", "--file", str(workflows), "--json"],
            ["describe", "match-folder", "--set", f"match.collections.{HOSTILE}={HOSTILE}"],
            ["describe", "match-folder", "--set", f"summary={HOSTILE}"],
            ["describe", "match-folder", "--set", 'summary="\\e]0;owned\\a"'],
            [HOSTILE],
            ["list", f"--{HOSTILE}"],
            ["match", f"{HOSTILE}.png", "b.png"],
            ["pairs", str(photos), "--dry-run"],
            ["pairs", str(photos), "--select", "list", "--list", str(pair_list), "--output", "p.parquet"],
            ["models", "list", "--tracking", server],
            ["models", "list", "--tracking", f"http://{HOSTILE}"],
            ["models", "list", "--tracking", f"http://h]{HOSTILE}"],
            ["describe", "quickstart", "--work", f"s3://[{HOSTILE}"],
            ["jobs", "--address", f"http://[{HOSTILE}"],
        ):
            capfd.readouterr()
            status = main(command)
            said = "".join(capfd.readouterr())
            assert not set("\x1b\x07\x9b\u202e") & set(said), (command, said)
            assert re.search(r"\\(x|u00)1b", said) or status == 0, (command, said)


@contextlib.contextmanager
def answering(status: int, body: object) -> Iterator[str]:
    """A server on this machine that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body, ensure_ascii=False).encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_nor_does_a_log_or_an_error_that_nobody_foresaw() -> None:
    script = f"""
import logging
from dhpf.pipelines import __main__
def fail():
    logging.getLogger("dhpf.x").warning("see %s", {HOSTILE!r})
    raise RuntimeError({HOSTILE!r})
__main__.application.command("fail")(fail)
__main__.main(["fail"])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("owned\\u0007") >= 2 and "Traceback" in done.stderr
    assert not set("\x1b\x07\x9b\u202e") & set(done.stderr)


def test_versions_that_are_known_to_be_bad_are_not_accepted() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {found.name: found.specifier for found in map(Requirement, project["dependencies"])}
    accepted = [name for name, version in KNOWN_BAD.items() if wanted[name].contains(version)]
    assert accepted in ([], ["mlflow"]), accepted  # whose later versions pip passes over by itself


def test_the_tested_versions_are_those_that_are_accepted() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", (ROOT / "requirements.lock").read_text(), re.M))
    for found in map(Requirement, project["dependencies"]):
        assert found.specifier.contains(locked[found.name].partition("+")[0]), found
        assert any(part.operator == ">=" for part in found.specifier), f"{found} has no floor"


def test_sigterm_ends_a_command_as_ctrl_c_does() -> None:
    script = """
import sys, time
from dhpf.pipelines import __main__
def slow(*_, **__):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("tidied", flush=True)
__main__.application.command("slow")(lambda: slow())
sys.exit(__main__.main(["slow"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == "tidied\n" and time.monotonic() - begun < 20
    assert err == "dhpf: interrupted; the same command goes on from here\n"


def test_a_reader_that_has_seen_enough_ends_a_command_quietly() -> None:
    command = f"{sys.executable} -m dhpf.pipelines schema | head -c 10"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "" and len(done.stdout) == 10
