"""Fetches versions of registered models, and refuses a checkpoint that is not the one that was registered."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from dhpf.errors import InputError
from dhpf.pipelines.tracking.registering import CHECKPOINT_TAG
from dhpf.pipelines.tracking.tracker import UNREACHED, Tracker, short_text
from dhpf.storage import FileLocation, Location
from dhpf.storage.copies import copies_folder


@dataclass(frozen=True)
class RegisteredVersion:
    """A model version of the registry, with its checkpoint on this machine.

    Attributes:
        name, version: such as "dhpf" and "3".
        checkpoint: path of the safetensors file.
    """

    name: str
    version: str
    checkpoint: Path

    @property
    def uri(self) -> str:
        """The URI of exactly this version; unlike an alias, it never means another."""
        return f"models:/{self.name}/{self.version}"


def fetch_version(tracker: Tracker, uri: str, folder: Path) -> RegisteredVersion:
    """The version that models:/NAME@ALIAS or models:/NAME/VERSION means now, its checkpoint copied below `folder`.

    Raises:
        InputError: there is no such model, alias or version, its checkpoint is not the one that was registered, or
            MLflow cannot be reached.
    """
    name, version, digest = _resolve(tracker, uri)
    own = folder / name / version
    try:
        with tracker.as_default():
            path = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(own)))
    except UNREACHED as error:
        raise InputError(f"model {uri}: version {version} has no readable artifacts ({short_text(error)})") from error
    found = sorted(path.rglob("*.safetensors"))
    if not found:
        raise InputError(f"model {uri}: version {version} holds no checkpoint of this project")
    if digest and hashlib.sha256(found[0].read_bytes()).hexdigest() != digest:
        raise InputError(
            f"model {uri}: the checkpoint of version {version} is not the one that was registered; "
            "restore it in the artifact store, or take another version"
        )
    return RegisteredVersion(name, version, found[0])


def models_folder(work: Location) -> Path:
    """Where this machine keeps what it fetches: in a folder itself, or beside the copies of a bucket's objects."""
    return (work.path if isinstance(work, FileLocation) else copies_folder()) / "models"


def _resolve(tracker: Tracker, uri: str) -> tuple[str, str, str | None]:
    """Name, version, and the registered digest of its checkpoint, which a version made by other means lacks."""
    wanted = re.fullmatch(r"models:/(?P<name>[^/:@]+)(@(?P<alias>[^/:@]+)|/(?P<version>\d+))", uri)
    if wanted is None:
        raise InputError(f"model {uri!r}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = wanted.group("name", "alias", "version")
    with tracker.reaching():
        try:
            if alias:
                found = tracker.client.get_model_version_by_alias(name, alias)
            else:
                found = tracker.client.get_model_version(name, version)
        except MlflowException as error:
            # Raises in its turn when the reason is that the registry cannot be reached.
            raise InputError(f"model {uri}: {_what_is_there(tracker, name)}") from error
    return str(found.name), str(found.version), found.tags.get(CHECKPOINT_TAG)


def _what_is_there(tracker: Tracker, name: str) -> str:
    """Why a version was not found, and which versions and aliases there are."""
    models = {str(model.name): model for model in tracker.registered_models()}
    if name not in models:
        return f"not in the registry {tracker.uri}; models there: {', '.join(sorted(models)) or 'none'}"
    numbers = sorted(int(version.version) for version in tracker.versions(name))
    choices = [f"/{number}" for number in numbers] + [f"@{alias}" for alias in sorted(models[name].aliases)]
    return f"{name} has no such version or alias; it has {', '.join(choices) or 'none'}"
