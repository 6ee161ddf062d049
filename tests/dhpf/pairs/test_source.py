"""Benchmarks give the same pairs and images from a folder and from a bucket."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import scipy.io

from dhpf.errors import InputError
from dhpf.images import ImageError
from dhpf.pairs import open_pair_source
from dhpf.pairs.pf_willow import NUM_KEYPOINTS
from dhpf.records import Rejection
from dhpf.shards.pair_json import pair_to_json
from tests.conftest import Bucket


def pf_pascal(root: Path) -> None:
    (root / "Annotations" / "cat").mkdir(parents=True)
    for name in "ab":
        scipy.io.savemat(root / "Annotations" / "cat" / f"{name}.mat", {"kps": [[ord(name), 2], [3, 4]]})
    rows = "a.jpg,b.jpg,8\na.jpg,c.jpg,8\n"
    (root / "test_pairs.csv").write_text(f"source_image,target_image,class\n{rows}")
    _images(root / "JPEGImages", "a.jpg", "b.jpg")


def pf_willow(root: Path) -> None:
    axes = [f"{axis}{k}" for axis in ("XA", "YA", "XB", "YB") for k in range(1, NUM_KEYPOINTS + 1)]
    rows = [",".join(["W/car(G)/a.png", "W/car(G)/b.png", *map(str, range(len(axes)))]), "W/x/a.png,W/x/b.png,no"]
    (root / "test_pairs.csv").write_text("\n".join([",".join(["imageA", "imageB", *axes]), *rows]))
    _images(root, "car(G)/a.png", "car(G)/b.png")


def spair(root: Path) -> None:
    names = [f"{number:06d}-1-2:cow" for number in range(100)]
    (root / "Layout" / "large").mkdir(parents=True)
    (root / "Layout" / "large" / "test.txt").write_text("\n".join(names))
    (root / "PairAnnotation" / "test").mkdir(parents=True)
    for number, name in enumerate(names[:-1]):
        path = root / "PairAnnotation" / "test" / f"{name.replace(':', '_') if number % 2 else name}.json"
        keypoints = {"src_kps": [[number, 1]], "trg_kps": [[2, number]]}
        boxes = {"src_bndbox": [1, 2, 3, 4], "trg_bndbox": [5, 6, 7, 8]}
        path.write_text(
            json.dumps({"category": "cow", "src_imname": "1.jpg", "trg_imname": "2.jpg"} | keypoints | boxes)
        )
    (root / "PairAnnotation" / "test" / "000007-1-2_cow.json").write_text("[")
    _images(root / "JPEGImages", "cow/1.jpg", "cow/2.jpg")


def caltech101(root: Path) -> None:
    header = "source_image,target_image,class,XA,YA,XB,YB"
    rows = 'c/ant/a.jpg,c/ant/b.jpg,1,"1,2,3","4,5,6","1,2,3","4,5,6"\nc/ant/a.jpg,c/ant/b.jpg,1,x,1,1,1'
    (root / "test_pairs_caltech_with_category.csv").write_text(f"{header}\n{rows}\n")
    _images(root / "101_ObjectCategories", "ant/a.jpg", "ant/b.jpg")


def _images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


LAYOUTS = {"pf_pascal": pf_pascal, "pf_willow": pf_willow, "spair": spair, "caltech101": caltech101}


def pairs_of(kind: str, root: str) -> tuple[list[Any], list[bytes]]:
    """All rows of the test split without their root, and the images of the usable ones."""
    source = open_pair_source(kind, {"root": root})
    rows, images = [], []
    for pair in source.pairs("test"):
        if isinstance(pair, Rejection):
            rows.append({name: text.replace(root, "") for name, text in dataclasses.asdict(pair).items()})
        else:
            rows.append(pair_to_json(pair))
            images += [source.read(pair.source), source.read(pair.target)]
    return rows, images


@pytest.mark.parametrize(("kind", "write"), LAYOUTS.items())
def test_a_bucket_holds_a_benchmark_as_a_folder_does(
    kind: str, write: Callable[[Path], None], tmp_path: Path, bucket: Bucket
) -> None:
    root = tmp_path / "benchmark"
    root.mkdir()
    write(root)
    for path in root.rglob("*.*"):
        bucket.put(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    rows, images = pairs_of(kind, str(root))
    uri = bucket.uri("benchmark")
    found, found_images = pairs_of(kind, uri)
    place, query = uri.split("?")
    without_place = json.loads(unquote(json.dumps(found).replace(place, "").replace(f"?{query}", "")))
    assert without_place == json.loads(json.dumps(rows)) and found_images == images
    assert len(images) >= 2 and any("reason" in row for row in rows), "usable rows, and others"


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_bucket_without_the_benchmark_is_said(kind: str, bucket: Bucket) -> None:
    with pytest.raises(InputError, match="no such file|neither"):
        list(open_pair_source(kind, {"root": bucket.uri("nowhere")}).pairs("test"))
    with pytest.raises(InputError, match=f"pair source {kind} 'gs://x/y': gs:// is not read"):
        list(open_pair_source(kind, {"root": "gs://x/y"}).pairs("test"))


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("image", ["../beside.jpg", "/beside.jpg", "cow/../../../beside.jpg"])
def test_no_image_leads_out_of_a_bucket(kind: str, image: str, bucket: Bucket) -> None:
    bucket.put("beside.jpg", b"not the benchmark's")
    with pytest.raises(ImageError, match="lies outside"):
        open_pair_source(kind, {"root": bucket.uri("below")}).read(image)
