"""The scores of an evaluation as a gallery needs them: of each pair, and their means by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dhpf.drawing import in_words
from dhpf.pipelines.gallery.rows import rounded
from dhpf.results import Results


@dataclass(frozen=True)
class PairScores:
    """The scores of one method on one shard set.

    Attributes:
        metric: by which pairs are ranked, a PCK@0.1 if there is one; None without any score.
        main: the pairs' values of it, by number.
        means: (metric, class or None for all, mean, number of pairs).
    """

    metric: str | None
    main: dict[int, float]
    means: Sequence[tuple[str, str | None, float, int]]
    _numbers: Any
    _table: pa.Table

    def of_pair(self, number: int) -> list[tuple[str, float]]:
        """A pair's values, by the metrics' names in words."""
        begin, end = np.searchsorted(self._numbers, [number, number + 1])
        rows = self._table.slice(begin, end - begin).to_pylist()
        return [(in_words(row["metric"]), row["value"]) for row in rows]

    def for_page(self) -> list[list[Any]]:
        """[metric, mean, pairs, [[class, mean, pairs], ...]] of each metric."""
        found: dict[str, list[Any]] = {}
        for metric, category, mean, count in self.means:
            if category is None:
                found[metric] = [in_words(metric), rounded(mean, 4), count, []]
            else:
                found[metric][3].append([category, rounded(mean, 4), count])
        return list(found.values())


def read_scores(results: Results) -> PairScores:
    """Reads the scores of an output.

    Raises:
        InputError: it is damaged.
    """
    table = results.table(["number", "category", "metric", "value"]).sort_by("number").combine_chunks()
    metrics = pc.unique(table["metric"]).to_pylist()
    metric = next((m for m in metrics if m.startswith("PCK@0.1 ")), metrics[0] if metrics else None)
    chosen = table.filter(pc.equal(table["metric"], metric)) if metrics else table
    main = dict(zip(chosen["number"].to_pylist(), chosen["value"].to_pylist(), strict=True))
    return PairScores(metric, main, list(_means(table, metrics)), table["number"].to_numpy(), table)


def _means(table: pa.Table, metrics: Sequence[str]) -> list[tuple[str, str | None, float, int]]:
    found: list[tuple[str, str | None, float, int]] = []
    for metric in metrics:
        rows = table.filter(pc.equal(table["metric"], metric))
        found.append((metric, None, pc.mean(rows["value"]).as_py(), rows.num_rows))
        classes = rows.group_by("category").aggregate([("value", "mean"), ("value", "count")]).sort_by("category")
        for row in classes.to_pylist():
            found.append((metric, row["category"], row["value_mean"], row["value_count"]))
    return found
