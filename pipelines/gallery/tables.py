"""The tables of a run that a gallery shows: correspondences and predictions, each with the images of its pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dhpf.errors import InputError
from dhpf.manifest import read_manifest
from dhpf.pairs.image_stores import open_image_store
from dhpf.pipelines.inputs.shard_set import open_shard_set, shard_set_output
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.results import Results, outputs_with_table
from dhpf.results import open as open_results
from dhpf.storage import Location, parent_of

ReadImage = Callable[[str], bytes]

PREDICTIONS, SCORES = "predictions", "scores"
"""Folders of what the evaluate stage makes with a method."""


@dataclass(frozen=True)
class ShownTable:
    """A table of pairs.

    Attributes:
        stage: "match" or "evaluate".
        on: name of the collection or the shard set.
        method: of an evaluation, else "".
        rows: the correspondences or the predictions.
        scores: of an evaluation.
        store: identifies where the images lie.
        read: gives the bytes of an image's file by its id; raises InputError where it is gone.
    """

    stage: str
    on: str
    method: str
    rows: Results
    scores: Results | None
    store: str
    read: ReadImage


def shown_tables(run: Location, images: str | None = None) -> list[ShownTable]:
    """The tables of a run, or of one of its outputs.

    Args:
        images: folder or URI where images that are in no shard lie now; None for where the run has read them.

    Raises:
        InputError: there is no complete output of match or evaluate, or it is not known where its images lie.
    """
    found = [_matches(place, images) for place in _outputs(run, "match")]
    methods = dict.fromkeys(parent_of(place) for place in _outputs(run, "evaluate"))
    found += [table for place in methods for table in _predictions(place, images)]
    if not found:
        raise InputError(f"gallery of {run}: holds no complete output of the match or the evaluate stage")
    return found


def _outputs(run: Location, stage: str) -> Iterator[Location]:
    for place in outputs_with_table(run):
        manifest = read_manifest(place)
        if manifest is not None and manifest.record.get("stage") == stage:
            yield place


def _matches(place: Location, images: str | None) -> ShownTable:
    rows = open_results(place)
    on = str(rows.record["on"])
    run = _ancestor(place, 2 + on.count("/"))  # the output is RUN/match/ON
    return ShownTable("match", on, "", rows, None, *_images_of(run, on, rows, images))


def _predictions(method: Location, images: str | None) -> Iterator[ShownTable]:
    if read_manifest(method / PREDICTIONS) is None:
        return
    rows = open_results(method / PREDICTIONS)
    scores = open_results(method / SCORES) if read_manifest(method / SCORES) is not None else None
    on = str(StageOutput(rows.folder).planned("on"))
    run = _ancestor(method, 3 + on.count("/"))  # the method's folder is RUN/evaluate/ON/METHOD
    yield ShownTable("evaluate", on, method.name, rows, scores, *_images_of(run, on, rows, images))


def _images_of(run: Location, on: str, rows: Results, images: str | None) -> tuple[str, ReadImage]:
    """Where the images of an output's pairs lie, and what reads them."""
    shards = run / "shard"
    if shard_set_output(shards, on).manifest() is not None:
        return f"{shards}/{on}", open_shard_set(shards, on).read
    root = images or rows.record.get("images")
    if root is None:
        raise InputError(f"gallery of {rows.folder}: nothing says where the images lie; name their folder by --images")
    try:
        store = open_image_store(root, "collection")
    except InputError as error:
        raise InputError(f"{error}; if the images have moved, name their folder by --images") from error
    return root, store.read


def _ancestor(place: Location, steps: int) -> Location:
    for _ in range(steps):
        place = parent_of(place)
    return place
