import pytest
import torch

from dhpf.errors import InputError
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.compiled import CompiledEngine
from dhpf.model.engines.row_blocks import RowBlockEngine


def test_the_fastest_for_the_device_is_taken() -> None:
    assert isinstance(choose_engine(), CompiledEngine)
    assert isinstance(choose_engine("torch"), RowBlockEngine)


def test_an_engine_that_cannot_run_is_refused() -> None:
    with pytest.raises(InputError, match="unknown value 'compield'; did you mean 'compiled'"):
        choose_engine("compield")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'compiled' runs on a CPU, not on cuda"):
        choose_engine("compiled", torch.device("cuda"))
