"""The MLflow store of a work folder, and what happens when it cannot be reached.

By default everything lies in the work folder: mlflow.db and mlartifacts. Where MLflow must answer, as to fetch a model,
and cannot be reached, there is an InputError; the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.request import url2pathname

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from requests import RequestException
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from dhpf.errors import InputError
from dhpf.pipelines.outputs.shared_work import require_no_password, require_server
from dhpf.storage import FileLocation, Location, location_of, split_uri

TRACKING_VARIABLE, REGISTRY_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"

CODE_TAG = "dhpf.code_version"
"""Tag of runs and of model versions that names the code that made them."""

Found = TypeVar("Found")
"""The type of a search's results: runs, models or versions."""

DEFAULT_EXPERIMENT = "0"
"""MLflow's own, which every store has; its artifacts lie where a new experiment's would."""

UNREACHED = (MlflowException, RequestException)
"""Errors that MLflow raises when its server or store does not work."""


class UnusableStore(InputError):
    """MLflow's store in a file of this machine cannot be used; a run can do without it."""


class Tracker:
    """MLflow's client for one work folder.

    Args:
        work: work folder; MLflow's default store lies in it, if it is a folder of this machine.
        uri: of the tracking server; None: MLFLOW_TRACKING_URI, or SQLite in `work`.

    Attributes:
        work: the work folder.
        artifacts: where artifacts of the default store lie; None where a server keeps them.

    Raises:
        InputError: `work` is a bucket and no URI is given.
    """

    def __init__(self, work: Location | Path, uri: str | None = None) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self.work = location_of(work)
        self.uri, self.artifacts = _stores(self.work, uri or os.environ.get(TRACKING_VARIABLE))
        self._default_lock = threading.RLock()

    @functools.cached_property
    def client(self) -> mlflow.MlflowClient:
        """MLflow's own, of this store; a store in files is made when it is first used."""
        with self.reaching():
            _make_whole(self.uri)
            return mlflow.MlflowClient(self.uri, self.uri)

    @contextlib.contextmanager
    def reaching(self) -> Iterator[None]:
        """Turns a failure of MLflow within the block, where its answer is needed, into an InputError."""
        try:
            yield
        except UNREACHED as error:
            remedy = "or unset MLFLOW_TRACKING_URI to track in the work folder"
            raise InputError(
                f"MLflow at {self.uri}: cannot be used ({short_text(error)}); when it can, the same command goes on "
                f"from here{', ' + remedy if TRACKING_VARIABLE in os.environ else ''}"
            ) from error

    def require_usable(self) -> None:
        """Opens a store in files, and makes it where there is none; a server may be away.

        Raises:
            UnusableStore: this one is damaged, full, or cannot be written.
            InputError: MLflow has no store for such a URI.
        """
        if is_server(self.uri):
            return
        path = database_of(self.uri)
        try:
            with self.reaching():
                self.client.get_experiment(DEFAULT_EXPERIMENT)
        except (InputError, SQLAlchemyError, OSError) as error:
            if path is None:
                raise
            raise UnusableStore(
                f"MLflow's store {path}: cannot be used, it is damaged, locked, full or may not be written "
                f"({short_text(error)}); mend that, or move the file away, and dhpf track sync fills a new one"
            ) from error

    def registered_models(self) -> Iterator[RegisteredModel]:
        """Every model of the registry."""
        return all_pages(lambda token: self.client.search_registered_models(page_token=token))

    def versions(self, name: str) -> Iterator[ModelVersion]:
        """Every version of a registered model."""
        return all_pages(lambda token: self.client.search_model_versions(f"name = '{name}'", page_token=token))

    @contextlib.contextmanager
    def as_default(self) -> Iterator[None]:
        """Makes this store MLflow's process-wide default within the block, as registering and downloading need it."""
        with self._default_lock:
            before = {name: os.environ.get(name) for name in (TRACKING_VARIABLE, REGISTRY_VARIABLE)}
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            try:
                yield
            finally:
                # MLflow writes both into the environment, where the next Tracker would take them for the user's wish.
                mlflow.set_tracking_uri(before[TRACKING_VARIABLE])  # type: ignore[arg-type]  # None unsets it
                mlflow.set_registry_uri(before[REGISTRY_VARIABLE])  # type: ignore[arg-type]
                if before[REGISTRY_VARIABLE] is None:
                    os.environ.pop(REGISTRY_VARIABLE, None)


def is_server(uri: str) -> bool:
    """Whether this is a server's address, rather than a store in files of one machine."""
    return split_uri(uri).scheme in ("http", "https")


def database_of(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    database = make_url(uri).database if split_uri(uri).scheme.startswith("sqlite") else None
    return None if database in (None, "", ":memory:") else Path(str(database))


def _make_whole(uri: str) -> None:
    """Makes a SQLite store, if there is none, under another name first.

    MLflow makes its tables one after the other: a process that is killed meanwhile would leave a store that can neither
    be opened nor be made.
    """
    path = database_of(uri)
    if path is None or path.exists():
        return
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        mlflow.MlflowClient(_sqlite(new)).get_experiment(DEFAULT_EXPERIMENT)
        FileLocation(path).put_if_absent(new.read_bytes())
    finally:
        new.unlink(missing_ok=True)


def _stores(work: Location, uri: str | None) -> tuple[str, Path | None]:
    require_no_password("--tracking", uri)
    require_server(work, uri)
    if not isinstance(work, FileLocation):
        assert uri is not None
        return uri, None
    folder = work.path.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    store = _sqlite(folder / "mlflow.db") if uri is None else _absolute(uri)
    return store, None if is_server(store) else folder / "mlartifacts"


def _absolute(uri: str) -> str:
    """A store in files by its whole path, since other processes have other current folders."""
    scheme, _, path, *_ = split_uri(uri)
    if scheme.startswith("sqlite"):
        database = make_url(uri).database
        return uri if database is None or database in ("", ":memory:") else _sqlite(Path(database).resolve(), scheme)
    if scheme == "file" and not path.startswith("/"):
        return Path(url2pathname(path)).resolve().as_uri()
    return uri if scheme else str(Path(uri).resolve())


def _sqlite(path: Path, scheme: str = "sqlite") -> str:
    """The URI of a database in a file, whatever the file's name holds."""
    plain = f"{scheme}:///{path}"
    if make_url(plain).database == str(path):
        return plain
    # MLflow takes what stands behind sqlite:/// for the path as it is, and makes a folder of that name.
    driver = scheme if "+" in scheme else f"{scheme}+pysqlite"
    return URL.create(driver, database=str(path)).render_as_string(hide_password=False)


def all_pages(search: Callable[[str | None], PagedList[Found]]) -> Iterator[Found]:
    """Every result of one of MLflow's searches, which give one page at a time.

    Args:
        search: gives the page of a token, and the first page for None.
    """
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def short_text(error: Exception) -> str:
    """An error as one short line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
