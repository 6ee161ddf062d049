"""What a worker leaves out of a block, and the steps that it announces, where a block has ended a process before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Step:
    """What a worker is about to do.

    Attributes:
        kind: to read and describe an image; to match a pair; or something for the whole block, such as writing it.
        name: id of the image, or place of the pair in the block; empty for the whole block.
    """

    kind: Literal["image", "pair", "block"]
    name: str = ""

    @classmethod
    def of_image(cls, image_id: str) -> Step:
        return cls("image", image_id)

    @classmethod
    def of_pair(cls, place: int) -> Step:
        return cls("pair", str(place))


WHOLE_BLOCK = Step("block")
"""What concerns neither one image nor one pair."""


@dataclass(frozen=True)
class Caution:
    """What a worker leaves out of a block, and what it calls before each step.

    Attributes:
        images: why images, by id, are left out.
        pairs: why pairs, by their place in the block, are left out.
        block: why the whole block is left out, or empty.
        on_step: called before each step. If given, images and pairs are processed one at a time.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[int, str] = field(default_factory=dict)
    block: str = ""
    on_step: Callable[[Step], object] | None = None

    @property
    def is_stepwise(self) -> bool:
        """Whether images and pairs are processed one at a time."""
        return self.on_step is not None

    def step(self, step: Step) -> None:
        """Announces the next step, if `on_step` is given."""
        if self.on_step is not None:
            self.on_step(step)

    def reason_without(self, image_id: str) -> str | None:
        """Why an image is left out; None where it is not."""
        return self.block or self.images.get(image_id)


NO_CAUTION = Caution()
"""Nothing is left out, and no step is announced."""
