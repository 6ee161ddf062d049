"""The architecture is kept: who may import whom, and a test file for every module."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

WITHOUT_OWN_TEST = {
    "pipelines/registered_source.py": "tested by whoever judges versions, promotion/test_contest.py",
    "dhpf/model/engines/engine.py": "tested by every engine, test_row_blocks.py",
    "pipelines/training/all_workers.py": "tested on several processes, test_learner.py",
    "pipelines/dry_run.py": "tested by the command line, test_main.py",
    "pipelines/stage_runs/": "tested by every run, test_workflow.py",
    "pipelines/stage_states.py": "tested by the command line, test_main.py",
    "pipelines/commands/": "tested as a user meets them, test_main.py, test_pair_table.py and test_contest.py",
    "pipelines/submission/examination.py": "what others send and answer, test_doctor.py and test_diagnosis.py",
    "pipelines/load.py": "tested by the command line, test_main.py",
    "pipelines/outputs/package_files.py": "tested by what is sent, submission/test_upload.py",
    "pipelines/tracking/mlflow_runs.py": "tested by its player, test_player.py",
    "pipelines/tracking/run_log.py": "tested by every run, test_runs.py",
    "pipelines/tracking/entries.py": "tested by every verdict, promotion/test_contest.py",
    "pipelines/blocks/work.py": "protocols",
    "pipelines/matching/matched_pair.py": "tested with matching, test_block_matching.py",
    "pipelines/worker_reports.py": "tested by every run, test_workflow.py",
    "pipelines/inputs/planned_pairs.py": "tested through its two users, test_pairs.py and test_collection.py",
    "pipelines/layer_search/set_scores.py": "tested by every search, test_search.py",
}

WITHOUT_OWN_MODULE = ("tests/parity/", "tests/infra/", "tests/benchmarks/", "tests/protocol/")
"""Folders of tests of something larger than a module."""

MOST_FILES, MOST_CALLING_FILES, MOST_CARRIERS = 82, 56, 39
"""That one follows from `dhpf run match-folder` to the row of a pair; of them those that call others, and those that
run in the actor, from its block to the row: see trace_match.py."""


def test_imports_go_down_only() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def modules() -> list[str]:
    return [p.relative_to(ROOT).as_posix() for package in ("dhpf", "pipelines") for p in (ROOT / package).rglob("*.py")]


def own_test_file(module: str) -> str:
    path = Path(module)
    return f"tests/{path.parent.as_posix()}/test_{path.stem.strip('_')}.py"


def excused(module: str) -> bool:
    return Path(module).name == "__init__.py" or any(module.startswith(known) for known in WITHOUT_OWN_TEST)


def test_every_module_has_its_tests() -> None:
    missing = [m for m in modules() if not excused(m) and not (ROOT / own_test_file(m)).exists()]
    assert missing == []


def test_every_test_file_has_its_module() -> None:
    known = {own_test_file(module) for module in modules()} | {
        f"tests/test_{name}.py" for name in ("docs", "examples", "floors", "install", "security")
    }
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert {file for file in files - known if not file.startswith(WITHOUT_OWN_MODULE)} == set()


def test_no_excuse_outlives_its_reason() -> None:
    for known in WITHOUT_OWN_TEST:
        excused_modules = [m for m in modules() if m.startswith(known)]
        assert excused_modules, f"{known} is gone"
        assert not any((ROOT / own_test_file(m)).exists() for m in excused_modules), f"{known} has its own tests now"


def test_one_pair_is_followed_through_few_files() -> None:
    """Hardly more than now (82, 56 and 39); a change that needs fewer lowers the numbers."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "trace_match.py"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    found = re.search(r"^(\d+) files, (\d+) of them call functions of others; (\d+) carry the pair$", done.stdout, re.M)
    assert found, done.stderr
    counts, most = tuple(map(int, found.groups())), (MOST_FILES, MOST_CALLING_FILES, MOST_CARRIERS)
    assert all(count <= limit for count, limit in zip(counts, most, strict=True)), done.stdout
