"""Writes what a run should show in MLflow into its journal; from the driver or from a worker, without MLflow."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dhpf.errors import shown
from dhpf.pipelines.tracking.journal import Writer
from dhpf.storage import Location

if TYPE_CHECKING:
    from dhpf.drawing import Picture
    from dhpf.pipelines.tracking.datasets import ReadDataset

NOTE_TAG = "mlflow.note.content"

MAX_NOTE = 5000
"""Characters of a description; MLflow's database takes no longer tag."""


MAX_NAME = 250
"""Characters of a metric's or a parameter's name, for the same reason."""


class RunLog:
    """A run as a process logs to it; may be sent to workers.

    Args:
        writer: of the journal.
        key: the journal's own for the run.
    """

    def __init__(self, writer: Writer, key: str) -> None:
        self.writer, self.key = writer, key

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Writes numbers; characters that MLflow does not allow in names are replaced."""
        numbers = {clean_name(name): float(value) for name, value in metrics.items()}
        self.writer.write("metrics", self.key, {"metrics": numbers, "step": step})

    def log_params(self, config: Mapping[str, Any]) -> None:
        """Writes settings, whole as JSON and flat as parameters."""
        params = {name: shown(value) for name, value in _flatten(config).items()}
        self.writer.write("params", self.key, {"params": params})
        self.log_text(json.dumps(config, indent=2, default=str), "config.json")

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Writes tags: facts such as the dataset's fingerprint."""
        self.writer.write("tags", self.key, {"tags": {shown(name): shown(str(value)) for name, value in tags.items()}})

    def describe(self, text: str) -> None:
        """Writes the run's description, in Markdown, which MLflow shows first."""
        self.set_tags({NOTE_TAG: text[:MAX_NOTE]})

    def log_datasets(self, datasets: Sequence[ReadDataset]) -> None:
        """Writes which data the run reads: by name, digest and location, and as tags with the whole digest."""
        self.set_tags({f"dataset {dataset.name}": dataset.digest for dataset in datasets})
        self.writer.write("datasets", self.key, {"datasets": [dataclasses.asdict(dataset) for dataset in datasets]})

    def log_file(self, place: Location, folder: str) -> None:
        """Writes a file of the work folder or bucket as an artifact; the journal holds its location alone."""
        self.writer.write("artifact", self.key, {"artifact": f"{folder}/{place.name}", "at": str(place)})

    def log_text(self, text: str, artifact: str) -> None:
        """Writes a text, such as a table as CSV, as the artifact FOLDER/NAME."""
        self._log_content(shown(text).encode(), artifact)

    def log_picture(self, picture: Picture, artifact: str) -> None:
        """Writes a picture as the PNG artifact FOLDER/NAME.png."""
        from dhpf.drawing import save_picture

        content = io.BytesIO()
        save_picture(picture, content)
        self._log_content(content.getvalue(), artifact)

    def _log_content(self, content: bytes, artifact: str) -> None:
        name = artifact.rpartition("/")[2]
        self.writer.write_with_file("artifact", self.key, {"artifact": artifact}, name, content)


def clean_name(name: str) -> str:
    """A name that MLflow takes: other characters are replaced by underscores; it is no path elsewhere, nor long."""
    allowed = "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)
    parts = [part.replace(".", "_") if set(part) == {"."} else part for part in allowed.split("/") if part]
    return "/".join(parts)[:MAX_NAME] or "_"


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[clean_name(f"{prefix}{key}")] = value if isinstance(value, str) else json.dumps(value)
    return flat
