"""What others install: a wheel and a source archive that hold all that `dhpf` needs, and nothing beside the package."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
SITE_PACKAGES = Path(pytest.__file__).parents[1]


def build(source: Path, kind: str, output: Path) -> Path:
    """Builds a "wheel" or an "sdist" of a source tree as an installer does; the archive's path."""
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(output)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(iter(output.glob("*.whl" if kind == "wheel" else "*.tar.gz")))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive of this checkout."""
    source, output = copied(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("dist")
    return build(source, "wheel", output), build(source, "sdist", output)


def copied(source: Path) -> Path:
    """Fills a folder with what both archives are made of; builders leave files beside it."""
    for name in ("dhpf", "pipelines"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, source)
    return source


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_every_module_and_no_other_top_level_package(archives: tuple[Path, Path]) -> None:
    names = set(files_of(archives[0]))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dhpf").rglob("*.py")}
    pipelines = {f"dhpf/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "pipelines").rglob("*.py")}
    assert modules | pipelines <= names
    assert {"dhpf/py.typed", "dhpf/pipelines/__main__.py", "dhpf/pipelines/workflows.yaml"} <= names
    web = {f"dhpf/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "pipelines" / "gallery" / "web").iterdir()}
    assert len(web) == 3 and web <= names
    assert {name.split("/")[0] for name in names} == {"dhpf", "dhpf-0.1.0.dist-info"}
    assert {"dhpf-0.1.0.dist-info/licenses/LICENSE", "dhpf-0.1.0.dist-info/licenses/NOTICE"} <= names


def test_the_source_archive_builds_the_same_wheel(archives: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, source_archive = archives
    with tarfile.open(source_archive) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build(next(tmp_path.iterdir()), "wheel", tmp_path / "dist")
    assert files_of(again) == files_of(wheel)


def metadata(wheel: Path) -> list[str]:
    return files_of(wheel)["dhpf-0.1.0.dist-info/METADATA"].decode().splitlines()


def test_a_torch_for_cpus_or_another_cuda_is_kept(archives: tuple[Path, Path]) -> None:
    lines = metadata(archives[0])
    needed = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist")]
    accepted = {requirement.name: requirement.specifier for requirement in needed if not requirement.marker}
    assert {"2.9.1+cpu", "2.11.0+cu128", "2.14.1"} == set(
        accepted["torch"].filter(["2.9.1+cpu", "2.11.0+cu128", "2.14.1"])
    )
    assert "0.24.1+cpu" in accepted["torchvision"]
    assert all("==" not in str(specifier) for specifier in accepted.values())
    assert "License-Expression: Apache-2.0" in lines


@pytest.mark.parametrize("python", ["3.11.7", "3.12.1", "3.13.0"])
def test_the_wheel_is_for_the_pythons_that_are_named(archives: tuple[Path, Path], python: str) -> None:
    wanted = next(line for line in metadata(archives[0]) if line.startswith("Requires-Python"))
    assert python in SpecifierSet(wanted.partition(": ")[2])


@pytest.fixture(scope="module")
def installed(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_wheel_alone(tmp_path_factory.mktemp("environment"), archives[0])


def with_wheel_alone(folder: Path, wheel: Path) -> Path:
    """The `dhpf` command of an environment into which the wheel alone was installed; it borrows all other packages."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    own_packages = next((folder / "lib").glob("python*/site-packages"))
    (own_packages / "borrowed.pth").write_text(f"{SITE_PACKAGES}\n")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, "--ignore-installed", wheel], check=True)
    return folder / "bin" / "dhpf"


def run(command: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_installed_command_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "--help")
    assert done.returncode == 0 and "describe" in done.stdout, done.stderr
    assert run(installed, tmp_path, "--version").stdout.startswith("dhpf 0.1.0")
    assert "quickstart" in run(installed, tmp_path, "list").stdout
    assert "photo-warps/train" in run(installed, tmp_path, "describe", "quickstart").stdout
    assert list(tmp_path.iterdir()) == []


def test_what_is_imported_is_the_wheel(installed: Path, tmp_path: Path) -> None:
    python = installed.with_name("python")
    done = run(python, tmp_path, "-c", "import dhpf.pipelines.config; print(dhpf.__file__); import pipelines")
    assert str(installed.parents[1]) in done.stdout
    assert "No module named 'pipelines'" in done.stderr
