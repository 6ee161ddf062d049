import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import dhpf
import dhpf.matcher
import dhpf.pipelines.load
import dhpf.records
import dhpf.results

PUBLIC_NAMES = {
    dhpf: {"Correspondences", "ImageError", "InputError", "Matcher", "ModelConfig", "PairRecord"},
    dhpf.Matcher: {"load", "match", "save", "transfer"},
    dhpf.records: {"Box", "Correspondences", "NO_BOX", "PairRecord", "Part", "Points", "Rejection", "SPLITS", "box_of"},
    dhpf.pipelines.load: {"load_matcher"},
    dhpf.results: {"REJECTS", "Results", "TABLE_NAMES", "open", "outputs_with_table", "reading_line"},
    dhpf.results.Results: {"folder", "record", "rejected", "table", "tables", "to_pandas"},
}
"""What users' code may name; a name that goes or changes its meaning stands in CHANGELOG.md."""


def public_names(owner: ModuleType | type) -> set[str]:
    """The names without underscore that a module or class defines itself, dataclass fields included."""
    if owner is dhpf:
        return set(dhpf.__all__)
    names = {name for name in [*vars(owner), *getattr(owner, "__annotations__", {})] if not name.startswith("_")}
    if isinstance(owner, type):
        return names
    return {name for name in names if is_own(owner, name)}


def is_own(module: ModuleType, name: str) -> bool:
    value = vars(module)[name]
    if inspect.ismodule(value):
        return False
    source = inspect.getsource(module)
    return any(f"\n{start}" in source for start in (f"def {name}(", f"class {name}", f"{name} = "))


@pytest.mark.parametrize("owner", PUBLIC_NAMES, ids=lambda owner: owner.__name__)
def test_public_names_are_those_of_the_list(owner: ModuleType | type) -> None:
    assert public_names(owner) == PUBLIC_NAMES[owner]


def test_every_name_of_the_package_is_what_its_module_defines() -> None:
    assert dhpf.Matcher is dhpf.matcher.Matcher
    assert dhpf.Correspondences is dhpf.records.Correspondences
    assert all(getattr(dhpf, name).__name__ == name for name in dhpf.__all__)


def test_an_unknown_name_is_told_with_those_that_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Matchr'; it has Correspondences, .*Matcher"):
        _ = dhpf.Matchr


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import dhpf, sys; sys.exit(bool({'torch', 'numpy', 'ray', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
