"""Loads a Matcher: the untrained default, a checkpoint, or a version of the model registry."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dhpf.matcher import UNTRAINED, Matcher
from dhpf.storage import location_of


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
        return Matcher(dataclasses.replace(UNTRAINED, weights=weights))
    if not reference.startswith("models:/"):
        return Matcher.load(reference, weights)
    # MLflow takes seconds to import.
    from dhpf.pipelines.tracking.fetching import fetch_version, models_folder
    from dhpf.pipelines.tracking.tracker import Tracker

    place = location_of(work)
    found = fetch_version(Tracker(place, tracking), reference, models_folder(place))
    return Matcher.load(found.checkpoint, weights)
