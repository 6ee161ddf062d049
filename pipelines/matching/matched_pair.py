"""The result for one pair: what the network found, in the original images' pixels, and what a row says of it."""

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
from dhpf.model.best_cells import BestCells
from dhpf.model.joint import JointMatches
from dhpf.model.transfer import dense_flow, mutual_matches, transfer, transfer_jointly
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
    """One pair and what the network says of it.

    Attributes:
        number: running number of the pair in its set.
        found: of this pair alone, on the CPU.
        layers: selected layers, ascending.
        seconds: its share of the block's matching time.
        joint: what all paths through other images of the block say, on the CPU; None where it was matched alone.
    """

    number: int
    record: PairRecord
    source: ImageFacts
    target: ImageFacts
    found: BestCells
    layers: tuple[int, ...]
    seconds: float
    joint: JointMatches | None = None

    def common_row(self) -> dict[str, Any]:
        """The columns that every table of pairs has."""
        row = common_row(self.number, self.record, self.source, self.target)
        return row | {"layers": layer_mask(self.layers)}

    def matches(self, limit: int) -> tuple[Points, Points, NDArray[np.float32]]:
        """The best mutual matches: points of source and target in original pixels, and confidences."""
        best = mutual_matches(self.found, limit, self.joint)
        source = points_from_frame(best.source_points.numpy(), self.source.size, self.record.mirrored)
        target = points_from_frame(best.target_points.numpy(), self.target.size, self.record.mirrored)
        return source, target, best.confidence.numpy()

    def transfer(self, points: Points) -> tuple[Points, NDArray[np.bool_], NDArray[np.float32]]:
        """(K, 2) source points, which were wanted, in the target's original pixels; (K,) valid; (K,) confidence."""
        framed = torch.from_numpy(points_to_frame(points, self.source.size, self.record.mirrored))[None]
        every = torch.ones(framed.shape[:2], dtype=torch.bool)
        moved = (
            transfer(self.found, framed, every) if self.joint is None else transfer_jointly(self.joint, framed, every)
        )
        predicted = points_from_frame(moved.points[0].numpy(), self.target.size, self.record.mirrored)
        return predicted, moved.valid[0].numpy(), moved.confidence[0].numpy()

    def flow(self) -> Points:
        """(N, 2) target point in original pixels of every source cell; every cell was wanted."""
        flow = dense_flow(self.found)[0] if self.joint is None else self.joint.points
        return points_from_frame(flow.numpy(), self.target.size, self.record.mirrored)


class RowMaker(Protocol):
    """What a stage makes of a matched pair; travels to the actors."""

    @property
    def schema(self) -> pa.Schema: ...

    def wanted_points(self, record: PairRecord) -> Sequence[Points] | None:
        """Source points, in original pixels, that the row will transfer; None for every cell of the grid."""

    def __call__(self, pair: MatchedPair) -> Mapping[str, Any]: ...

    def failed(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row of a pair that could not be matched, from its `common_row`."""
