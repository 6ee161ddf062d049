"""Loads models: a Matcher for this process, or what workers load a version of the model registry from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dhpf.matcher import Matcher
from dhpf.storage import FileLocation, Location, location_of
from dhpf.storage.copies import copies_folder

if TYPE_CHECKING:
    from dhpf.pipelines.inputs.model_source import ModelSource
    from dhpf.pipelines.tracking.tracker import Tracker


def load_matcher(
    reference: str | None = None,
    work: str | Path = "dhpf-work",
    weights: str | None = None,
    tracking: str | None = None,
) -> Matcher:
    """A matcher for a notebook or the command line.

    Args:
        reference: a checkpoint's path, models:/NAME@ALIAS or models:/NAME/VERSION; None for the untrained default.
        work: the work folder that holds the model registry, unless `tracking` names another.
        weights: file with the backbone's weights; None for the installed or published ones.
        tracking: MLflow's server; None: MLFLOW_TRACKING_URI, or the work folder.

    Raises:
        InputError: there is no such model, or it cannot be used.
    """
    if reference is None:
        return Matcher()
    if not reference.startswith("models:/"):
        return Matcher.load(reference, weights)
    # MLflow takes seconds to import.
    from dhpf.pipelines.tracking.fetching import fetch_version
    from dhpf.pipelines.tracking.tracker import Tracker

    place = location_of(work)
    found = fetch_version(Tracker(place, tracking), reference, _models_folder(place))
    return Matcher.load(found.checkpoint, weights)


def registered_source(tracker: Tracker, uri: str, folder: Location) -> ModelSource:
    """What workers load a version of the registry from; its checkpoint is fetched here, once.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        folder: of the workflow, where workers on any machine find the checkpoint.

    Raises:
        InputError: there is no such version, or its checkpoint is not the registered one.
    """
    from dhpf.pipelines.inputs.model_source import ModelSource, checkpoint_for_workers
    from dhpf.pipelines.tracking.fetching import fetch_version

    found = fetch_version(tracker, uri, _models_folder(folder))
    return ModelSource(checkpoint=checkpoint_for_workers(found.checkpoint, folder), version=found.uri)


def _models_folder(folder: Location) -> Path:
    """Where this machine keeps what it fetches: in the folder itself, or beside the copies of a bucket's objects."""
    return (folder.path if isinstance(folder, FileLocation) else copies_folder()) / "models"
