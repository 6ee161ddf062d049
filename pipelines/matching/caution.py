"""How carefully a block is matched: what is left out of it, and whether each step is announced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Caution:
    """What a worker leaves out of a block, and whom it tells what it does next.

    Attributes:
        images: why images, by id, are left out.
        pairs: why pairs, by their place in the block, are left out.
        on_step: told what is done next: `step` is an image's place in OpenBlock.images, or beyond these a pair's place
            in the block. With it, one thing is done at a time.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[int, str] = field(default_factory=dict)
    on_step: Callable[[int], object] | None = None

    @property
    def is_stepwise(self) -> bool:
        """Whether one thing is done at a time."""
        return self.on_step is not None

    def step(self, number: int) -> None:
        """Says what is done next."""
        if self.on_step is not None:
            self.on_step(number)


NO_CAUTION = Caution()
"""Everything is tried, nothing is announced."""
