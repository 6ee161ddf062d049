import pytest
import torch

from dhpf.config import ModelConfig
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.model_source import ModelSource

SOURCE = ModelSource(ModelConfig(selection="fixed", layers=(11,)))


def test_without_a_reserved_gpu_the_cpu_is_used_even_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert SOURCE.load(Resources()).backbone.mean.device.type == "cpu"


def test_where_there_is_no_gpu_the_cpu_estimates_for_those_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert SOURCE.load(Resources(gpus=1)).backbone.mean.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_reserved_gpu_is_used() -> None:
    assert SOURCE.load(Resources(gpus=0.5)).backbone.mean.is_cuda
