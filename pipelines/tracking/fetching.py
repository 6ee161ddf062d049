"""Versions of the registry fetched, each with the checkpoint that was registered and no other."""

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
        """What names exactly this version, now and later."""
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


def _resolve(tracker: Tracker, uri: str) -> tuple[str, str, str | None]:
    """Name, version, and the registered digest of its checkpoint, which a version made by other means lacks."""
    alias_at = re.fullmatch(r"models:/([^/:@]+)@([^/:@]+)", uri)
    version_of = re.fullmatch(r"models:/([^/:@]+)/(\d+)", uri)
    if alias_at is None and version_of is None:
        raise InputError(f"model {uri!r}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    with tracker.reaching():
        try:
            if alias_at is not None:
                found = tracker.client.get_model_version_by_alias(*alias_at.groups())
            else:
                assert version_of is not None
                found = tracker.client.get_model_version(*version_of.groups())
        except MlflowException as error:
            # Raises in its turn when the reason is that the registry cannot be reached.
            names = ", ".join(m.name for m in tracker.client.search_registered_models()) or "none"
            raise InputError(f"model {uri}: not in the registry {tracker.uri}; models there: {names}") from error
    return str(found.name), str(found.version), found.tags.get(CHECKPOINT_TAG)
