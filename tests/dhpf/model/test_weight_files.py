import pickle
from pathlib import Path

import pytest
import torch

from dhpf.errors import InputError
from dhpf.model.weight_files import read_state_dict


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("executed", "w"))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save({"a": Evil()}, tmp_path / "zip.pth")
    for name in ("evil.pth", "zip.pth"):
        with pytest.raises(InputError, match="never loaded|not a torch"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["missing.pth", "junk.pth", "junk.safetensors"])
def test_unusable_files_are_named(tmp_path: Path, name: str) -> None:
    if "junk" in name:
        (tmp_path / name).write_bytes(b"junk" * 100)
    with pytest.raises(InputError, match=name):
        read_state_dict(tmp_path / name)
