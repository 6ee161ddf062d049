import subprocess
import sys
from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.outputs.code_version import VERSION, code_version
from dhpf.pipelines.submission.upload import MOST_BYTES, UPLOADED_FILE, pack, said_size
from dhpf.pipelines.workflow_file import PACKAGED_FILE


def test_what_is_sent_is_the_packages_and_the_workflow_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine: {summary: All my own.}\n")
    folder = tmp_path / "sent"
    pack(mine, folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert (folder / UPLOADED_FILE).read_text() == mine.read_text()
    assert {"dhpf/py.typed", "dhpf/pipelines/__main__.py", "dhpf/pipelines/workflows.yaml"} <= names
    assert {Path(name).suffix for name in names} == {".py", ".typed", ".yaml"}
    assert {name.partition("/")[0] for name in names} == {"dhpf", UPLOADED_FILE}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert said_size(folder).startswith(f"{len(names)} files, ")


def test_code_that_was_sent_has_the_version_of_the_code_that_was_installed(tmp_path: Path) -> None:
    pack(PACKAGED_FILE, tmp_path)
    script = "from dhpf.pipelines.outputs.code_version import code_version; print(code_version())"
    # -S: without the packages that are installed, and so without what they say of dhpf.
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == code_version() != VERSION, done.stderr
    (tmp_path / "dhpf" / "images.py").write_text("x = 1")
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() not in ("", code_version())


def test_what_is_too_large_is_named_before_it_is_sent(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * MOST_BYTES)
    with pytest.raises(InputError, match=r"the largest: workflows.yaml \(5.00 MB\), dhpf/"):
        pack(large, tmp_path / "sent")
