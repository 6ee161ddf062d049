import importlib.util

import pytest
import torch

from dhpf.errors import InputError
from dhpf.model.engines.choose import choose_engine
from dhpf.model.engines.compiled import CompiledEngine
from dhpf.model.engines.row_blocks import RowBlockEngine
from dhpf.model.engines.triton_engine import TritonEngine

GPU = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes torch report a current GPU to the choice of an engine; the engines' buffers lie in the CPU's memory."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("dhpf.model.engines.choose.RowBlockEngine", lambda device: RowBlockEngine(torch.device("cpu")))


def test_the_one_made_for_the_device_is_taken(gpu: None) -> None:
    assert isinstance(choose_engine(), CompiledEngine)
    assert isinstance(choose_engine("auto", GPU), TritonEngine)
    assert isinstance(choose_engine("triton", "cuda:1"), TritonEngine)


def test_torch_runs_anywhere(gpu: None) -> None:
    assert isinstance(choose_engine("torch"), RowBlockEngine)
    assert isinstance(choose_engine("torch", GPU), RowBlockEngine)


def test_without_triton_a_gpu_runs_torch(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else find_spec(name))
    assert isinstance(choose_engine("auto", GPU), RowBlockEngine)
    with pytest.raises(InputError, match="'triton' needs the package triton, which is not installed"):
        choose_engine("triton", GPU)


def test_an_old_gpu_runs_torch(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert isinstance(choose_engine("auto", GPU), RowBlockEngine)
    with pytest.raises(InputError, match=r"needs compute capability 8\.0, and cuda has 7\.5; take 'auto' or 'torch'"):
        choose_engine("triton", GPU)


def test_an_engine_that_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown value 'compield'; did you mean 'compiled'"):
        choose_engine("compield")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'compiled' runs on a CPU, not on cuda"):
        choose_engine("compiled", GPU)
    with pytest.raises(InputError, match="'triton' runs on a CUDA GPU, not on cpu; take 'auto' or 'torch'"):
        choose_engine("triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="'triton' needs a CUDA GPU, and torch finds none here"):
        choose_engine("triton", GPU)
