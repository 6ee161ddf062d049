"""Notes what images an output is made of, and finds those that were replaced when the output is asked for again.

Beside an output's plan lie the stamps that its images had (dhpf.regular_files.Stamp). A stamp that differs says only
that a file was written again; whether it holds another picture is seen by its digest, which tables and shards have of
every image that they were made from.

images/NUMBER.json names a Parquet file, one row per image, and its digest; the highest number counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dhpf.errors import InputError
from dhpf.images import ImageError, printable
from dhpf.manifest import CommitRecord, commit_record, file_location, read_file, read_json, sealed_json
from dhpf.pipelines.inputs.collection import Collection
from dhpf.pipelines.outputs.store import REJECTS_TASK, StageOutput
from dhpf.pipelines.outputs.tables import CORRESPONDENCES, MATCHED, STAMPS, read_parquet
from dhpf.pipelines.outputs.writers import PART, file_name, table_file
from dhpf.pipelines.progress import CountedWork
from dhpf.planning.plan_summary import counted
from dhpf.shards.shards import Shard
from dhpf.storage import Location
from dhpf.storage.read_ahead import read_ahead

Flags = NDArray[np.bool_]

IMAGES = "images"
"""Folder of an output in which stamps are noted."""

_NAMED = 3
"""How many images an error names."""

_TABLE = "stamps"

_log = logging.getLogger(__name__)


class ReplacedImages(InputError):
    """Images are not those any more that an output was made of."""


@dataclass(frozen=True)
class UsedImages:
    """The images that an output is made of.

    Attributes:
        owner: what has them, as an error names it, such as "collection photos".
        stage: whose output it is.
        ids: in an order that the output's plan settles.
        stamps: (num_images, 2) int64, the size and the version of each.
        read: gives the bytes of an image by its id, or raises ImageError.
        digests: of some images, given by flags, what committed results were made from: (place in `ids`, sha256), an
            image as often as a task has it.
    """

    owner: str
    stage: str
    ids: Sequence[str]
    stamps: NDArray[np.int64]
    read: Callable[[str], bytes]
    digests: Callable[[Iterable[CommitRecord], Flags], Iterator[tuple[int, str]]]


def require_not_replaced(output: StageOutput, images: UsedImages) -> None:
    """Checks that all that is committed was made from the images as they are now, and notes their stamps.

    Images are read only where their stamps differ from those that were noted. An output that was complete before
    stamps were noted is left as it is.

    Raises:
        ReplacedImages: results were made from other pictures; the message names some.
    """
    while True:
        number = _newest(output.root)
        if number:
            changed = _changed(_noted(output.root, number), images.stamps)
            if not changed.any():
                return
            _require_same_pictures(output, images, changed)
        elif output.manifest() is not None:
            return
        if _note(output.root, number + 1, images.stamps):
            return


def of_collection(collection: Collection, output: StageOutput) -> UsedImages:
    """The images of a collection, whose matches an output holds."""

    def digests(commits: Iterable[CommitRecord], wanted: Flags) -> Iterator[tuple[int, str]]:
        done = {commit.task: commit for commit in commits}
        for job in collection.jobs(set(done)):
            names = {printable(name): place for place, name in job.images.items() if wanted[place]}
            if names:
                yield from _digests_of_rows(output, done[job.task], names)

    plan = collection.plan
    return UsedImages(f"collection {collection.name}", "match", plan.images, plan.stamps, collection.read, digests)


def _digests_of_rows(output: StageOutput, commit: CommitRecord, names: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    part = output.read(commit, file_name(PART))
    columns = ["source", "target", "status", "source_sha256", "target_sha256"]
    table = read_parquet([part], CORRESPONDENCES, columns, where=output.root)
    table = table.filter(pc.equal(table["status"], MATCHED))
    for side in ("source", "target"):
        pairs = zip(table[side].to_pylist(), table[f"{side}_sha256"].to_pylist(), strict=True)
        for name, digest in dict.fromkeys(pairs):
            if digest and name in names:
                yield names[name], digest


def digests_of_shards(
    output: StageOutput, places: Mapping[str, int], commits: Iterable[CommitRecord], wanted: Flags
) -> Iterator[tuple[int, str]]:
    """What `UsedImages.digests` wants of the images that shards hold.

    Args:
        places: of all images, by their ids.
    """
    for commit in commits:
        if commit.task != REJECTS_TASK:
            tar, index = (output.location(commit, name) for name in ("shard.tar", "index.json"))
            shard = Shard(tar, index, output.read(commit, "index.json"))
            for image in shard.image_ids:
                place = places.get(image)
                if place is not None and wanted[place]:
                    yield place, shard.image_digest(image)


def _require_same_pictures(output: StageOutput, images: UsedImages, changed: Flags) -> None:
    manifest = output.manifest()
    commits = [*output.committed().values(), *output.to_retry()] if manifest is None else manifest.commits
    held = np.zeros((len(changed), hashlib.sha256().digest_size), dtype=np.uint8)
    is_held, is_replaced = np.zeros_like(changed), np.zeros_like(changed)
    for place, digest in images.digests(commits, changed):
        found = np.frombuffer(bytes.fromhex(digest), dtype=np.uint8)
        is_replaced[place] |= is_held[place] and (held[place] != found).any()
        held[place], is_held[place] = found, True
    to_read = np.flatnonzero(is_held & ~is_replaced).tolist()

    def digest_of(place: int) -> tuple[int, bytes | None]:
        try:
            return place, hashlib.sha256(images.read(images.ids[place])).digest()
        except ImageError:  # there is no other picture either
            return place, None

    with CountedWork("comparing images that were written again", "image", len(to_read)) as work:
        for place, found_now in read_ahead(digest_of, to_read):
            is_replaced[place] = found_now is not None and found_now != held[place].tobytes()
            work.update(1)
    if is_replaced.any():
        raise _error(output, images, np.flatnonzero(is_replaced).tolist())


def _error(output: StageOutput, images: UsedImages, places: Sequence[int]) -> ReplacedImages:
    named = ", ".join(printable(images.ids[place]) for place in places[:_NAMED])
    more = ", ..." if len(places) > _NAMED else ""
    return ReplacedImages(
        f"{images.owner}: {counted(len(places), 'image')} replaced since {output.root} was made of what they were: "
        f"{named}{more}; put them back, or use another --name, or --restart {images.stage} to make all anew; nothing "
        "that is stored was changed"
    )


def _changed(noted: NDArray[np.int64] | None, now: NDArray[np.int64]) -> Flags:
    """(num_images,) whose stamps differ; all, where it is not known what was noted."""
    if noted is None or noted.shape != now.shape:
        return np.ones(len(now), dtype=np.bool_)
    return np.asarray((noted != now).any(axis=1))


def _newest(root: Location) -> int:
    """The highest number of what was noted; 0 if nothing was."""
    keys = (entry.key for entry in (root / IMAGES).entries())
    return max((int(key.removesuffix(".json")) for key in keys if key.endswith(".json")), default=0)


def _noted(root: Location, number: int) -> NDArray[np.int64] | None:
    """The noted stamps; None where they are damaged, or being removed by another driver."""
    place = _place(root, number)
    try:
        record = commit_record(read_json(place), place)
        [name] = record.files
        table = read_parquet([read_file(root, record, name)], STAMPS, where=place)
    except InputError as error:
        _log.warning("%s; all images are compared by their content", str(error).partition(";")[0])
        return None
    return np.stack([table[column].to_numpy() for column in STAMPS.names], axis=1)


def _note(root: Location, number: int, stamps: NDArray[np.int64]) -> bool:
    """Notes stamps under this number, unless another driver has used it; those of lower numbers are removed."""
    table = pa.table([pa.array(column) for column in stamps.T], schema=STAMPS)
    [(name, content)] = table_file(_TABLE, table).items()
    key = f"{IMAGES}/{uuid.uuid4().hex}/{name}"
    (root / key).put(content)
    entry = {"key": key, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    record = CommitRecord(_TABLE, {name: entry}, {"num_images": len(stamps)})
    if not _place(root, number).put_if_absent(sealed_json(vars(record))):
        (root / key).delete()
        return False
    for earlier in range(1, number):
        _remove(root, _place(root, earlier))
    return True


def _remove(root: Location, place: Location) -> None:
    with contextlib.suppress(InputError):  # it is gone already, or damaged
        record = commit_record(read_json(place), place)
        for name in record.files:
            file_location(root, record, name).delete()
    place.delete()


def _place(root: Location, number: int) -> Location:
    return root / IMAGES / f"{number:06}.json"
