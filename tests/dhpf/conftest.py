import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the benchmarks' images; tests that use it are skipped where there is none."""
    folder = Path(os.environ.get("DHPF_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no benchmark images in {folder}; DHPF_DATA names another folder")
    return folder


@pytest.fixture(scope="session")
def failed_inputs() -> Path:
    """Small files that once ended a reader with something else than a sentence."""
    folder = Path(os.environ.get("DHPF_CASES", Path(__file__).parents[2].parent / "shared" / "cases"))
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder / "readers"
