from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.tracking.reachable import is_server, require_reachable


def test_a_store_in_a_file_is_not_made(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert require_reachable(uri) == uri and not is_server(uri)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there(free_port: int) -> None:
    with pytest.raises(InputError, match="does not answer"):
        require_reachable(f"http://127.0.0.1:{free_port}")


def test_a_server_that_is_not_mlflows(foreign_server: str) -> None:
    with pytest.raises(InputError, match="does not answer"):
        require_reachable(foreign_server)
