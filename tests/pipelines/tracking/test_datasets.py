import pytest
from mlflow.data import get_source

from dhpf.pipelines.tracking.datasets import ReadDataset


@pytest.mark.parametrize(
    ("source", "kind"),
    [("/data/ü photos", "local"), ("s3://bucket/w/shard?endpoint_override=127.0.0.1:9&scheme=http", "s3")],
)
def test_mlflow_finds_a_datasets_source(source: str, kind: str) -> None:
    entry = ReadDataset("photos/all", "ab" * 32, source, 12, "matching").as_input()
    assert (entry.dataset.name, entry.dataset.source_type) == ("photos/all", kind)
    assert get_source(entry.dataset).uri == source
    assert entry.dataset.digest == "ab" * 16 and entry.dataset.profile == '{"num_pairs": 12}'
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "matching")]
