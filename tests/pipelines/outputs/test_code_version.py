from pathlib import Path

import yaml

from dhpf.pipelines.outputs.code_version import VERSION, code_version

ROOT = Path(__file__).parents[3]


def test_the_version_is_the_one_that_is_cited() -> None:
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]) == VERSION
    assert code_version().startswith(f"{VERSION}+")
