"""A small real workload for the storm: made images and a workflow of many small blocks, submitted until it is done."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import yaml
from PIL import Image, ImageFilter

from dhpf.storage import Location, location_of
from infra.local_cluster.cluster import Cluster
from infra.local_cluster.machine import PROJECT

WORKFLOW = "storm"
STAGES = ("shard", "evaluate", "match")
SUBMIT_SECONDS = 3600


@dataclass(frozen=True)
class Size:
    """How much one run of the workload is.

    Attributes:
        images: that are matched; with reach 2 these are about twice as many pairs.
        views: of each of the photos that are sharded and evaluated.
    """

    images: int
    views: int


SHORT, LONG = Size(images=24, views=2), Size(images=60, views=4)


def workflow_text(size: Size) -> str:
    """The workflow file: shards of two pairs, blocks of four."""
    actors = {"num_actors": 3, "min_actors": 1}
    model = {"backbone": "efficientnet_lite0", "selection": "fixed", "layers": [11, 15], "exponent": 2}
    source = {"kind": "photo_warps", "splits": ["test"], "options": {"views": size.views, "keypoints": 6}}
    photos = {"root": "made", "select": "neighbours", "reach": 2, "max_pairs": 4}
    stages = {
        "shard": {"sources": {"warps": source}, "max_pairs": 2},
        "evaluate": {"on": ["warps/test"], "methods": {"fixed": {}}, **actors},
        "match": {"collections": {"made": photos}, "model": {}, **actors},
    }
    return yaml.safe_dump({WORKFLOW: {"summary": "Work for the storm.", "model": model, **stages}}, sort_keys=False)


def made_image(number: int) -> bytes:
    """A PNG of blurred blots, another for each number."""
    random = np.random.default_rng(number)
    blots = random.integers(0, 256, (18, 24, 3), dtype=np.uint8)
    picture = Image.fromarray(blots).resize((120, 90), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


@dataclass(frozen=True)
class Workload:
    """The workload on a cluster.

    Attributes:
        environment: of a client of the cluster, as its env file says.
        file: the workflow file.
        folder: where submits run, which is not in the project.
    """

    environment: Mapping[str, str]
    file: Path
    folder: Path

    def run_folder(self, name: str) -> Location:
        """Where a run of this name lies."""
        work, _, query = self.environment["CLUSTER_WORK"].partition("?")
        return location_of(f"{work}/{name}?{query}")

    def submit(self, name: str) -> subprocess.CompletedProcess[str]:
        """Submits a run once, and waits for its end."""
        words = [sys.executable, "-m", "dhpf.pipelines", "submit", WORKFLOW, "--file", str(self.file), "--name", name]
        words += ["--work", self.environment["CLUSTER_WORK"], "--data", self.environment["CLUSTER_DATA"], "--wait"]
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(PROJECT)}
        return subprocess.run(
            words,
            cwd=self.folder,
            env={**own, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=SUBMIT_SECONDS,
        )

    def submit_until_done(self, name: str, most: int) -> int:
        """Submits a run again and again, as a user would whose run was lost; returns how often it took.

        Raises:
            RuntimeError: it is not done after so many.
        """
        for number in range(1, most + 1):
            done = self.submit(name)
            if done.returncode == 0:
                return number
            said = [line for line in done.stderr.splitlines() if line.strip()]
            print(f"  {name}: exit status {done.returncode}: {said[-1] if said else ''}", flush=True)
        raise RuntimeError(
            f"{name}: not done after {most} submits; the last said:\n{done.stdout}\n{done.stderr[-3000:]}"
        )


def prepared(cluster: Cluster, size: Size, folder: Path) -> Workload:
    """Puts the images into the cluster's bucket, and the workflow file into a folder."""
    environment = cluster.environment()
    os.environ |= cluster.secrets.s3
    data, _, query = environment["CLUSTER_DATA"].partition("?")
    numbers = list(range(size.images))
    Random(0).shuffle(numbers)
    for number in numbers:
        location_of(f"{data}/made/{number:03}.png?{query}").put(made_image(number))
    file = folder / "storm.yaml"
    file.write_text(workflow_text(size))
    return Workload(environment, file, folder)
