"""Data that a stage reads, as MLflow's lists of datasets show it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from mlflow.entities import Dataset, DatasetInput, InputTag

from dhpf.storage.bucket import is_uri

CONTEXT_TAG = "mlflow.data.context"

DIGEST_LENGTH = 32
"""MLflow's database takes 36 characters of a digest; the tag `dataset NAME` has all of it."""

Use = Literal["training", "validation", "evaluation", "matching"]


@dataclass(frozen=True)
class ReadDataset:
    """A shard set or a collection that a stage reads.

    Attributes:
        name: such as "photos/train".
        digest: sha256 of its content.
        source: its folder or s3:// URI, which never holds credentials.
        num_pairs: how many pairs it holds.
        use: what the stage does with it.
    """

    name: str
    digest: str
    source: str
    num_pairs: int
    use: Use

    def as_input(self) -> DatasetInput:
        """The dataset as MLflow takes it; its own `get_source` opens the source again."""
        dataset = Dataset(
            name=self.name,
            digest=self.digest[:DIGEST_LENGTH],
            source_type="s3" if is_uri(self.source) else "local",
            source=json.dumps({"uri": self.source}),
            profile=json.dumps({"num_pairs": self.num_pairs}),
        )
        return DatasetInput(dataset, [InputTag(CONTEXT_TAG, self.use)])
