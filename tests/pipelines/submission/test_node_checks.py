from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.submission import node_checks
from dhpf.pipelines.submission.examination import Check, Examination, NodeReport, Report
from dhpf.pipelines.submission.node_checks import examine_machine

if TYPE_CHECKING:
    from infra.s3_server import Bucket


def checks(wanted: Examination) -> dict[str, Check]:
    return {check.what: check for check in examine_machine(wanted).checks}


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_machine_that_can_do_it(kind: str, tmp_path: Path, bucket: Bucket) -> None:
    work = str(tmp_path / "work") if kind == "folder" else bucket.uri("work")
    data = str(tmp_path) if kind == "folder" else bucket.uri("data")
    weights = (("efficientnet_lite0", None),)
    seen = checks(Examination(code=code_version(), work=work, data=data, weights=weights))
    assert [check for check in seen.values() if not check.ok] == []
    assert {"python", "name", "code", "work", "data", "weights", "disk", "/dev/shm"} == set(seen)


def test_each_lack_is_seen_with_its_remedy(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(node_checks, "LEAST_DISK", shutil.disk_usage("/tmp").total * 2)
    monkeypatch.setattr(node_checks, "_SHARED_MEMORY", tmp_path / "none")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        tracking = f"http://127.0.0.1:{probe.getsockname()[1]}"
        wanted = Examination(
            code="0.0.0+other",
            work=str(tmp_path / "file" / "work"),
            data=str(tmp_path / "none"),
            tracking=tracking,
            weights=(("resnet50", str(tmp_path / "none.pth")),),
        )
        seen = checks(wanted)
    assert {what for what, check in seen.items() if not check.ok} == {
        "code",
        "work",
        "data",
        "weights",
        "tracking",
        "disk",
        "/dev/shm",
    }
    assert all(check.remedy for check in seen.values() if not check.ok)
    assert [what for what, check in seen.items() if not check.needed] == ["tracking"]
    assert seen["data"].found.endswith("no such folder") and "does not answer" in seen["tracking"].found


def test_a_machine_without_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    uri = bucket.uri("work") + "&region=elsewhere"  # a bucket that is not opened yet
    seen = checks(Examination(code=code_version(), work=uri, data=uri))
    assert not seen["work"].ok and not seen["data"].ok
    assert "denies access" in seen["work"].found


def test_only_what_is_needed_keeps_a_run_from_beginning() -> None:
    def report(*, ok: bool, needed: bool) -> Report:
        return Report([NodeReport("here", 0.0, [Check("disk", True, ""), Check("x", ok, "", needed=needed)])])

    assert report(ok=True, needed=True).ready and report(ok=False, needed=False).ready
    assert not report(ok=False, needed=True).ready
    assert not Report([], [Check("lease", False, "")]).ready
