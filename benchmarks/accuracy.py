"""`make accuracy`: PCK of methods and settings on PF-WILLOW and the PF-PASCAL part; one row after the other.

Reads the shard sets of `dhpf run self-taught --only shard`. Writes docs/accuracy.json after each row and leaves out
rows that the file has, so that an interrupted run goes on; what was learned is kept in the folder of `--maps`. The
tables and the picture of docs/accuracy.md are made from that file. Settings are chosen by the validation rows alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy_measures import Outcome, TestSet
from benchmarks.accuracy_page import write_page
from benchmarks.accuracy_rows import CHOSEN, MODELS, SETS, TRAININGS, Row, rows
from benchmarks.learning import Training, learn
from dhpf.checkpoint import build_network, load_network, save_network
from dhpf.model.network import HyperpixelNetwork
from dhpf.pipelines.commands.answers import shown_log
from dhpf.pipelines.inputs.shard_set import open_shard_set
from dhpf.storage import location_of

OUT = Path(__file__).parents[1] / "docs" / "accuracy.json"


class Measurement:
    """Measures rows on shard sets; keeps test sets in memory, and what it learns in a folder."""

    def __init__(self, shards: Path, maps: Path) -> None:
        names = {*SETS.values(), *(name for config in TRAININGS.values() for name in config.train_sets)}
        self._sets = {name: open_shard_set(location_of(shards), name) for name in sorted(names)}
        self._tests: dict[str, TestSet] = {}
        self._maps = maps

    def measure(self, row: Row) -> dict[str, Outcome]:
        """The outcome of a row, by its name; of a joint one that of its other readout too, which costs nothing."""
        name = SETS[row.benchmark]
        if name not in self._tests:
            self._tests[name] = TestSet(self._sets[name], self._maps / "tests")
        network = self._network(row)
        network.config = dataclasses.replace(network.config, **{**_PLAIN, **row.settings})
        if not row.is_joint:
            return {row.name: self._tests[name].alone(network)}
        return {row.read_out(way).name: found for way, found in self._tests[name].jointly(network).items()}

    def _network(self, row: Row) -> HyperpixelNetwork:
        model = MODELS[row.model]
        if row.seed is None:
            return build_network(model)
        learned = self._maps / f"{row.model}-{row.seed}.safetensors"
        if not learned.is_file():
            config = dataclasses.replace(TRAININGS[row.model], seed=row.seed)
            training = Training(learned.stem, dataclasses.replace(model, **CHOSEN[row.model]), config)
            save_network(learn(training, self._sets, self._maps).network, learned)
        return load_network(learned)


_PLAIN = {"features": "plain", "votes": "plain", "readout": "cell", "joint_side": 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--shards", type=Path, default=Path("dhpf-work/self-taught/shard"))
    parser.add_argument("--maps", type=Path, default=Path("dhpf-work/accuracy"), help="folder for up to 20 GB of maps")
    parser.add_argument("--until", type=int, help="end after so many rows (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measurement = Measurement(arguments.shards, arguments.maps)
    found: dict[str, Any] = json.loads(OUT.read_text()) if OUT.is_file() else {"rows": {}}
    for row in itertools.islice(rows(), arguments.until):
        if row.name in found["rows"]:
            continue
        for name, outcome in measurement.measure(row).items():
            found["rows"][name] = dataclasses.asdict(outcome)
            print(name, outcome, flush=True)
        OUT.write_text(json.dumps(found, indent=1) + "\n")
        write_page(OUT)


if __name__ == "__main__":
    with shown_log():
        main()
