"""The result for one matched pair, in the original images' pixels, and the protocol that makes a table row of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from dhpf.frame import points_from_frame, points_to_frame
from dhpf.images import printable
from dhpf.model.transfer import PairMatch
from dhpf.pipelines.cluster_metrics import StageName
from dhpf.pipelines.matching.describing import ImageFacts
from dhpf.pipelines.outputs.tables import MATCHED, layer_mask
from dhpf.records import PairRecord, Points


def common_row(number: int, record: PairRecord, source: ImageFacts, target: ImageFacts) -> dict[str, Any]:
    """The columns that every table of pairs has."""
    return {
        "number": number,
        "pair_id": record.pair_id,
        "category": printable(record.category),
        "source": printable(record.source),
        "target": printable(record.target),
        "status": source.failure or target.failure or MATCHED,
        "source_sha256": source.sha256,
        "target_sha256": target.sha256,
        "mirrored": record.mirrored,
        "source_size": list(source.size),
        "target_size": list(target.size),
        "layers": 0,
    }


@dataclass(frozen=True)
class MatchedPair:
    """A pair and the matches that were found for it.

    Attributes:
        number: running number of the pair in its set.
        found: the matches, direct or also through other images of the block, on the CPU.
        layers: selected layers, ascending.
        seconds: the pair's share of the time that its block took.
    """

    number: int
    record: PairRecord
    source: ImageFacts
    target: ImageFacts
    found: PairMatch
    layers: tuple[int, ...]
    seconds: float

    def common_row(self) -> dict[str, Any]:
        """The columns that every table of pairs has."""
        row = common_row(self.number, self.record, self.source, self.target)
        return row | {"layers": layer_mask(self.layers)}

    def matches(self, limit: int) -> tuple[Points, Points, NDArray[np.float32]]:
        """The at most `limit` most confident mutual matches.

        Returns:
            (M, 2) source points and (M, 2) target points in original pixels, and (M,) confidences.
        """
        best = self.found.mutual.best(limit)
        source = points_from_frame(best.source_points.numpy(), self.source.size, self.record.mirrored)
        target = points_from_frame(best.target_points.numpy(), self.target.size, self.record.mirrored)
        return source, target, best.confidence.numpy()

    def transfer(self, points: Points) -> tuple[Points, NDArray[np.bool_], NDArray[np.float32]]:
        """Transfers source points to the target.

        Args:
            points: (K, 2) in the source's original pixels, among those that the RowMaker wanted.

        Returns:
            (K, 2) points in the target's original pixels, (K,) valid, and (K,) confidence.
        """
        framed = torch.from_numpy(points_to_frame(points, self.source.size, self.record.mirrored))
        moved = self.found.transfer(framed)
        predicted = points_from_frame(moved.points[0].numpy(), self.target.size, self.record.mirrored)
        return predicted, moved.valid[0].numpy(), moved.confidence[0].numpy()

    def flow(self) -> Points:
        """(N, 2) target point, in original pixels, of every source cell; only where the RowMaker wanted every cell.

        NaN for cells that took no part in matching.
        """
        points = points_from_frame(self.found.points.numpy(), self.target.size, self.record.mirrored)
        if self.found.matched is not None:
            points[~self.found.matched.numpy()] = np.nan
        return points


class RowMaker(Protocol):
    """Makes a stage's table row of a matched pair; pickled and sent to the actors."""

    @property
    def stage(self) -> StageName: ...

    @property
    def schema(self) -> pa.Schema: ...

    def wanted_points(self, record: PairRecord) -> Sequence[Points] | None:
        """Source points, in original pixels, that the row will transfer; None for every cell of the grid."""

    def __call__(self, pair: MatchedPair) -> Mapping[str, Any]: ...

    def failed(self, row: dict[str, Any]) -> Mapping[str, Any]:
        """The row of a pair that could not be matched, from its `common_row`."""


def table_row(rows: RowMaker, pair: MatchedPair | dict[str, Any]) -> Mapping[str, Any]:
    """The table row of what `match_block` yields: a MatchedPair, or the `common_row` of a pair that failed."""
    return rows(pair) if isinstance(pair, MatchedPair) else rows.failed(pair)
