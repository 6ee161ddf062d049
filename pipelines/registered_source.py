"""Names a version of the model registry as the model of a stage."""

from __future__ import annotations

from dhpf.pipelines.inputs.model_source import ModelSource, checkpoint_for_workers
from dhpf.pipelines.tracking.fetching import fetch_version, models_folder
from dhpf.pipelines.tracking.tracker import Tracker
from dhpf.storage import Location


def registered_source(tracker: Tracker, uri: str, folder: Location, weights: str | None) -> ModelSource:
    """What workers load a version of the registry from; its checkpoint is fetched here, once.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        folder: of the workflow, where workers on any machine find the checkpoint.
        weights: see ModelSource.

    Raises:
        InputError: there is no such version, or its checkpoint is not the registered one.
    """
    found = fetch_version(tracker, uri, models_folder(folder))
    checkpoint = checkpoint_for_workers(found.checkpoint, folder)
    return ModelSource(checkpoint=checkpoint, version=found.uri, weights=weights)
