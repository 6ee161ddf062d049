"""Asks an MLflow server, and the store of its artifacts, whether they answer."""

from __future__ import annotations

import mlflow
import requests
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dhpf.errors import InputError
from dhpf.pipelines.tracking.tracker import DEFAULT_EXPERIMENT, UNREACHED, is_server, short_text

ANSWER_SECONDS = 10.0


def require_answer(uri: str) -> None:
    """Asks whether an MLflow server answers at all, in less time than MLflow's client does.

    Raises:
        RequestException: it does not.
    """
    if is_server(uri):
        requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS)


def require_reachable(uri: str) -> str:
    """Looks at an MLflow server without changing it; a store in a file is not looked at, since that would make it.

    Returns:
        what was seen.

    Raises:
        InputError: the server, or the store of its artifacts, does not answer.
    """
    if not is_server(uri):
        return uri
    try:
        # MLflow's client itself would ask for minutes.
        requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS).raise_for_status()
        experiment = mlflow.MlflowClient(uri).get_experiment(DEFAULT_EXPERIMENT)
    except UNREACHED as error:
        raise InputError(f"MLflow at {uri}: does not answer ({short_text(error)})") from error
    artifacts = str(experiment.artifact_location)
    try:
        get_artifact_repository(artifacts, uri).list_artifacts()
    except Exception as error:  # each kind of store has errors of its own
        raise InputError(
            f"MLflow at {uri}: its artifacts, {artifacts}, cannot be read ({short_text(error)})"
        ) from error
    return f"{uri}, artifacts in {artifacts}"
