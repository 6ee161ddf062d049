"""The architecture, held: who may import whom, and a test file for every module."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

WITHOUT_OWN_TEST = {
    "dhpf/errors.py": "one exception",
    "dhpf/drawing/": "tested together in test_drawing.py",
    "dhpf/pairs/source.py": "tested through every pair source",
    "pipelines/config.py": "tested by loading workflows, test_workflow_file.py",
    "pipelines/cluster.py": "tested by every run, test_workflow.py",
    "pipelines/code_version.py": "tested by every run, test_workflow.py",
    "pipelines/evaluate.py": "tested by every run, test_workflow.py",
    "pipelines/load.py": "tested by the command line, test_main.py",
    "pipelines/match.py": "tested by every run, test_workflow.py",
    "pipelines/matcher_pool.py": "tested by every run, test_workflow.py",
    "pipelines/model_source.py": "tested by every run, test_workflow.py",
    "pipelines/pictures.py": "tested by every run, test_workflow.py",
    "pipelines/progress.py": "tested by every run, test_workflow.py",
    "pipelines/registered_model.py": "tested by every run, test_workflow.py",
    "pipelines/shard.py": "tested by every run, test_workflow.py",
    "pipelines/shard_set.py": "tested by every run, test_workflow.py",
    "pipelines/tracking.py": "tested by every run, test_workflow.py",
    "pipelines/train.py": "tested by every run, test_workflow.py",
}


def test_imports_go_down_only() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def modules() -> list[str]:
    return [p.relative_to(ROOT).as_posix() for package in ("dhpf", "pipelines") for p in (ROOT / package).rglob("*.py")]


def test_every_module_has_its_tests() -> None:
    for module in modules():
        path = Path(module)
        if path.name == "__init__.py" or any(module.startswith(known) for known in WITHOUT_OWN_TEST):
            continue
        folder = "tests/pipelines" if path.parts[0] == "pipelines" else f"tests/{path.parent.as_posix()}"
        assert (ROOT / folder / f"test_{path.stem.strip('_')}.py").exists(), module


def test_every_test_file_has_its_module() -> None:
    stems = {Path(module).stem.strip("_") for module in modules()} | {"drawing"}
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.parent.name != "parity" and path != Path(__file__):
            assert path.stem.removeprefix("test_") in stems, path
