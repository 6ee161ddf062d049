"""The readers of files that others have made, each with small real files to begin with."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import scipy.io
import torch
from PIL import Image

from dhpf.checkpoint import FORMAT, _header, _model_config
from dhpf.config import ModelConfig
from dhpf.images import decode_image
from dhpf.model.weight_files import read_state_dict
from dhpf.pairs import open_pair_source
from dhpf.pairs.mat_file import read_array
from dhpf.pairs.pair_list import plan_pair_list
from dhpf.pipelines.workflow_file import PACKAGED_FILE, load_workflow, read_workflows
from dhpf.planning.blocks import Block
from dhpf.records import PairRecord
from dhpf.shards.pair_json import pair_from_json, pair_to_json, parse_json
from dhpf.shards.shards import Shard, encode_shard


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        seeds: contents of real files.
        read: reads an input; may write into the folder, which is its own.
    """

    seeds: Sequence[bytes]
    read: Callable[[bytes, Path], object]


def _picture(kind: str, mode: str = "RGB", **options: object) -> bytes:
    random = np.random.default_rng(1)
    depth = np.uint16 if mode == "I;16" else np.uint8
    shape = (12, 15) if mode in ("I;16", "L") else (12, 15, len(mode))
    encoded = io.BytesIO()
    Image.fromarray(random.integers(0, 250, shape, dtype=depth)).save(encoded, kind, **options)
    return encoded.getvalue()


def _image() -> Reader:
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = [_picture(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")]
    seeds += [_picture("PNG", "RGBA"), _picture("PNG", "I;16"), _picture("TIFF", "I;16"), _picture("PNG", "L")]
    seeds += [_picture("JPEG", exif=exif), _picture("JPEG", progressive=True), _picture("TIFF", compression="tiff_lzw")]
    return Reader(seeds, lambda data, folder: decode_image(data, "x"))


def _pair() -> PairRecord:
    points = np.array([[1, 2], [3, 4.5]], dtype=np.float32)
    return PairRecord(
        pair_id="000001",
        category="cat",
        source="a.png",
        target="b.png",
        source_keypoints=points,
        target_keypoints=points,
        source_box=(0.0, 0.0, 9.0, 9.0),
    )


def _read_shard(tar: bytes, data: bytes, folder: Path) -> None:
    (folder / "x.tar").write_bytes(tar)
    (folder / "x.json").write_bytes(data)
    shard = Shard(folder / "x.tar", folder / "x.json")
    for pair in shard.pairs:
        decode_image(shard.image_bytes(pair.source), pair.source)


def _shard_index() -> Reader:
    encoded = encode_shard(Block("block-000000", ("a.png", "b.png"), (_pair(),)), lambda name: _picture("PNG"))
    return Reader([encoded.index], partial(_read_shard, encoded.tar))


def _read_tar(index: bytes, data: bytes, folder: Path) -> None:
    """Reads all of a tar, whatever became of it: its index is given the length and the digests that it has now."""
    described = json.loads(index)
    for entry in described["entries"]:
        part = data[entry["offset"] : entry["offset"] + entry["size"]]
        entry |= {"sha256": hashlib.sha256(part).hexdigest(), "size": len(part)}
        entry["offset"] = min(entry["offset"], len(data))
    _read_shard(data, json.dumps(described | {"tar_size": len(data)}).encode(), folder)


def _tar() -> Reader:
    encoded = encode_shard(Block("block-000000", ("a.png", "b.png"), (_pair(),)), lambda name: _picture("PNG"))
    return Reader([encoded.tar], partial(_read_tar, encoded.index))


def _pair_json() -> Reader:
    seed = json.dumps(pair_to_json(_pair())).encode()
    return Reader([seed], lambda data, folder: pair_from_json(parse_json(data, "x"), "x"))


def _mat() -> Reader:
    seeds = []
    for compressed in (False, True):
        for values in ([[1.0, 2.0], [np.nan, np.nan]], np.arange(8, dtype=np.int16).reshape(4, 2)):
            file = io.BytesIO()
            scipy.io.savemat(file, {"before": "text", "kps": values}, do_compression=compressed)
            seeds.append(file.getvalue())
    return Reader(seeds, _read_mat)


def _read_mat(data: bytes, folder: Path) -> None:
    """The reader's own contract is ValueError; who calls it makes an InputError of that."""
    try:
        read_array(data, "kps")
    except ValueError:
        return


def _pascal_list() -> Reader:
    row = b"source_image,target_image,class,XA,YA,XB,YB,flip\nJPEGImages/a.jpg,JPEGImages/b.jpg,8,1;2,3;4,5;6,7;8,0\n"
    return Reader([row], partial(_read_source, "pf_pascal", "trn_pairs.csv", "train"))


def _caltech_list() -> Reader:
    row = b's,t,c,XA,YA,XB,YB\ncat/a.jpg,cat/b.jpg,1,"1,2,3","3,4,5","5,6,7","7,8,9"\n'
    return Reader([row], partial(_read_source, "caltech101", "test_pairs_caltech_with_category.csv", "test"))


def _spair_annotation() -> Reader:
    annotation = {
        "category": "cat",
        "src_imname": "a.jpg",
        "trg_imname": "b.jpg",
        "src_kps": [[1, 2], [3, 4]],
        "trg_kps": [[5, 6], [7, 8]],
        "src_bndbox": [0, 0, 9, 9],
        "trg_bndbox": [0, 0, 9, 9],
        "kps_ids": ["0", "1"],
        "viewpoint_variation": 1,
    }
    file = "PairAnnotation/trn/x.json"
    return Reader([json.dumps(annotation).encode()], partial(_read_source, "spair", file, "train"))


def _read_source(kind: str, file: str, split: str, data: bytes, folder: Path) -> None:
    for made in ("Layout/large", "PairAnnotation/trn"):
        (folder / made).mkdir(parents=True, exist_ok=True)
    (folder / "Layout/large/trn.txt").write_text("x\n")
    (folder / file).write_bytes(data)
    for _ in open_pair_source(kind, {"root": str(folder)}).pairs(split):
        pass


_IMAGES = ("a.png", "b.png", "c/d.png")


def _list_csv() -> Reader:
    row = b'source,target,category,source_points\na.png,b.png,cat,"1,2;3,4"\nb.png,c/d.png,,\n'
    return Reader([row], partial(_read_list, "x.csv"))


def _list_parquet() -> Reader:
    columns = {
        "source": ["a.png", "b.png"],
        "target": ["b.png", "c/d.png"],
        "category": ["cat", None],
        "source_points": [[[1.0, 2.0]], None],
    }
    seeds = []
    for compression in ("none", "snappy", "zstd"):
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file, compression=compression)
        seeds.append(file.getvalue())
    return Reader(seeds, partial(_read_list, "x.parquet"))


def _read_list(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)
    plan_pair_list(folder / name, _IMAGES, folder / "plan", max_images=8, max_pairs=8)


def _workflow() -> Reader:
    blocks = PACKAGED_FILE.read_bytes().split(b"\n\n")
    seeds = [block + b"\n" for block in blocks if b"*" not in block and b":" in block and not block.startswith(b"#")]
    return Reader(seeds, _read_workflow)


def _read_workflow(data: bytes, folder: Path) -> None:
    (folder / "x.yaml").write_bytes(data)
    for name in read_workflows(folder / "x.yaml"):
        load_workflow(folder / "x.yaml", name, [], folder)


def _checkpoint() -> Reader:
    tensors = {"projections.0.weight": torch.zeros(2, 3), "x": torch.ones(1, dtype=torch.int64)}
    header = {"format": FORMAT, "model": json.dumps(dataclasses.asdict(ModelConfig())), "backbone_sha256": "0" * 64}
    return Reader([safetensors.torch.save(tensors, header)], _read_checkpoint)


def _read_checkpoint(data: bytes, folder: Path) -> None:
    path = folder / "x.safetensors"
    path.write_bytes(data)
    header = _header(path)
    if header is not None:
        _model_config(header, path)
    read_state_dict(path)


def _weights() -> Reader:
    seeds = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, file, _use_new_zipfile_serialization=new)
        seeds.append(file.getvalue())
    return Reader(seeds, _read_weights)


def _read_weights(data: bytes, folder: Path) -> None:
    path = folder / "x.pth"
    path.write_bytes(data)
    read_state_dict(path)


READERS: Mapping[str, Callable[[], Reader]] = {
    "image": _image,
    "tar of a shard": _tar,
    "index of a shard": _shard_index,
    "pair of a shard": _pair_json,
    "annotation .mat": _mat,
    "annotation .json": _spair_annotation,
    "annotation .csv, PF-PASCAL": _pascal_list,
    "annotation .csv, Caltech-101": _caltech_list,
    "pair list .csv": _list_csv,
    "pair list .parquet": _list_parquet,
    "workflow": _workflow,
    "checkpoint .safetensors": _checkpoint,
    "weights .pth": _weights,
}


def names() -> Iterable[str]:
    """Of all readers."""
    return READERS.keys()
