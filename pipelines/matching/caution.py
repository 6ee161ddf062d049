"""How carefully a worker matches a block: which images and pairs it leaves out, and whether it announces each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Caution:
    """What a worker leaves out of a block, and whom it tells of each step beforehand.

    Attributes:
        images: why images, by id, are left out.
        pairs: why pairs, by their place in the block, are left out.
        on_step: called before each step with its number: the place of an image in OpenBlock.images, or the number of
            images plus the place of a pair in the block. If given, images and pairs are processed one at a time.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[int, str] = field(default_factory=dict)
    on_step: Callable[[int], object] | None = None

    @property
    def is_stepwise(self) -> bool:
        """Whether images and pairs are processed one at a time."""
        return self.on_step is not None

    def step(self, number: int) -> None:
        """Announces the next step, if anybody is to be told."""
        if self.on_step is not None:
            self.on_step(number)


NO_CAUTION = Caution()
"""Nothing is left out, and no step is announced."""
