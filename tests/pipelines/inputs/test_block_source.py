import pickle
from pathlib import Path

import pyarrow as pa
import pytest
import skimage.data
from PIL import Image

from dhpf.pipelines.inputs.block_source import BlockJob, CollectionJob, OpenBlock, ShardJob
from dhpf.planning.blocks import LISTED_PAIRS, Block, PlannedBlock, seal_of
from dhpf.planning.listed_blocks import POINTS
from dhpf.planning.spans import Span
from dhpf.records import PairRecord
from dhpf.shards.shards import encode_shard


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "top.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(skimage.data.chelsea()[:20, :30]).save(path)
    return tmp_path / "photos"


@pytest.fixture
def shard_job(photos: Path, tmp_path: Path) -> ShardJob:
    pairs = (PairRecord("x", "cat", "a/1.png", "a/2.png"), PairRecord("y", "", "a/2.png", "a/1.png", mirrored=True))
    encoded = encode_shard(Block("block-000003", ("a/1.png", "a/2.png"), pairs), lambda i: (photos / i).read_bytes())
    (tmp_path / "shard.tar").write_bytes(encoded.tar)
    (tmp_path / "index.json").write_bytes(encoded.index)
    return ShardJob("block-000003", 2, str(tmp_path / "shard.tar"), str(tmp_path / "index.json"), first=40)


@pytest.fixture
def closed_job(photos: Path) -> CollectionJob:
    block = PlannedBlock(2, first_pair=7, num_pairs=2, num_images=3, num_shared=0, spans=(Span(0, 1, 1, 3),))
    return CollectionJob(str(photos), block, None, {0: "a/1.png", 1: "a/2.png", 2: "top.png"})


@pytest.fixture
def listed_job(photos: Path, tmp_path: Path) -> CollectionJob:
    schema = pa.schema([*LISTED_PAIRS, pa.field("category", pa.string()), pa.field("points", POINTS)])
    rows = [
        {"number": 4, "source": 2, "target": 0, "category": "cat", "points": [[1, 2], [3, 4]]},
        {"number": 2, "source": 0, "target": 2, "category": "", "points": None},
    ]
    with pa.ipc.new_file(str(tmp_path / "pairs.arrow"), schema) as writer:
        batch = pa.RecordBatch.from_pylist(rows, schema=schema)
        writer.write_batch(batch, custom_metadata=seal_of(batch))
    block = PlannedBlock(0, first_pair=0, num_pairs=2, num_images=2, num_shared=0)
    return CollectionJob(str(photos), block, str(tmp_path / "pairs.arrow"), {0: "a/1.png", 2: "top.png"})


@pytest.mark.parametrize("kind", ["shard_job", "closed_job", "listed_job"])
def test_a_job_travels_to_workers(kind: str, request: pytest.FixtureRequest) -> None:
    job: BlockJob = request.getfixturevalue(kind)
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_name_that_is_no_text_travels_too(closed_job: CollectionJob) -> None:
    job = CollectionJob(closed_job.root, closed_job.block, None, {0: "a/\udcff.png", 1: "b", 2: "c"})
    assert pickle.loads(pickle.dumps(job)) == job


def test_the_pairs_of_a_shard_are_numbered_from_its_first(shard_job: ShardJob, photos: Path) -> None:
    block = shard_job.open()
    assert (list(block.numbers), [p.pair_id for p in block.pairs]) == ([40, 41], ["x", "y"])
    assert block.read("a/1.png") == (photos / "a/1.png").read_bytes()
    assert block.images == [("a/1.png", False), ("a/2.png", False), ("a/2.png", True), ("a/1.png", True)]


def test_pairs_in_closed_form_have_the_names_of_their_images(closed_job: CollectionJob, photos: Path) -> None:
    block = closed_job.open()
    assert (closed_job.task, closed_job.num_pairs, list(block.numbers)) == ("block-000002", 2, [7, 8])
    assert [(p.pair_id, p.category, p.source, p.target) for p in block.pairs] == [
        ("000000008", "a", "a/1.png", "a/2.png"),
        ("000000009", "", "a/1.png", "top.png"),
    ]
    assert block.read("top.png") == (photos / "top.png").read_bytes()


def test_pairs_of_a_list_keep_their_rows_categories_and_points(listed_job: CollectionJob) -> None:
    block = listed_job.open()
    first, second = block.pairs
    assert list(block.numbers) == [4, 2]
    assert (first.pair_id, first.category, first.source, first.target) == ("000000005", "cat", "top.png", "a/1.png")
    assert first.source_keypoints is not None and first.source_keypoints.tolist() == [[1, 2], [3, 4]]
    assert second.source_keypoints is None


def test_an_images_kind_is_the_category_of_its_pairs() -> None:
    records = [
        PairRecord("1", "", "a", "b"),
        PairRecord("2", "cat", "b", "c"),
        PairRecord("3", "dog", "d", "d", mirrored=True),
    ]
    block = OpenBlock(range(3), records, lambda image: b"")
    assert block.kinds == {
        ("a", False): ("", False),
        ("b", False): ("cat", False),
        ("c", False): ("cat", False),
        ("d", True): ("dog", True),
    }
