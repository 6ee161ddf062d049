"""Notes of what became of a block in quarantine, by which the step that ends processes is found.

Each trial has a note of its own in the stage output: the step that was begun last, and how the process ended. The note
outlives the process, its actor and their machine, so an end that nobody saw counts for its step, too.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dhpf.manifest import Damaged, read_json, sealed_json
from dhpf.pipelines.blocks.caution import Step
from dhpf.storage import Location

LOADING = Step("block", "loading")
"""The time before the first step, while the process starts and loads a model: no image, pair or block is its cause."""

UNSEEN = "lost together with its worker"
"""How a process ended whose actor or machine was lost, too."""

TOOK_LONGER = "took longer than"
"""How a process ended that was ended because a step took too long; the seconds follow."""

FROM_OUTSIDE = (UNSEEN, "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
"""How processes end that others end: operators, machines that are taken away, and where memory runs out."""

CRASHES_AT_A_STEP, ENDS_AT_A_STEP = 2, 3
"""A step is fatal when so many processes crashed there or took too long, or so many ended there in any way: whoever
ends processes at any time hardly meets the same step of the same block three times."""


@dataclass(frozen=True)
class End:
    """How the process of a trial ended, and at which step."""

    step: Step
    how: str


class Trial:
    """The note of a trial that goes on; it may be sent to another process."""

    def __init__(self, note: Location) -> None:
        self._note = note
        self.begin(LOADING)

    def begin(self, step: Step) -> None:
        """Notes the step that begins."""
        self._write(End(step, UNSEEN))

    def end(self, how: str) -> End:
        """Notes how the process ended, at the step that was noted last."""
        end = End(_end_of(self._note).step, how)
        self._write(end)
        return end

    def _write(self, end: End) -> None:
        self._note.put(sealed_json({"kind": end.step.kind, "name": end.step.name, "how": end.how}))


class Trials:
    """The trials of one block, in a folder of their own."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder

    def new(self) -> Trial:
        """Begins the next trial."""
        return Trial(self._folder / f"{uuid.uuid4().hex}.json")

    def ends(self) -> list[End]:
        """How the earlier trials ended; a note that is damaged counts for nothing."""
        ends = []
        for entry in self._folder.entries():
            with contextlib.suppress(Damaged):
                ends.append(_end_of(self._folder / entry.key))
        return ends


def fatal_steps(ends: Sequence[End]) -> Mapping[Step, str]:
    """The steps that are proven to end their process, each with how often and how it did."""
    ways: dict[Step, list[str]] = defaultdict(list)
    for end in ends:
        if end.step != LOADING:
            ways[end.step].append(end.how)
    return {step: _reason(found) for step, found in ways.items() if _is_fatal(found)}


def _is_fatal(ways: Sequence[str]) -> bool:
    crashes = [how for how in ways if not how.startswith(FROM_OUTSIDE)]
    return len(crashes) >= CRASHES_AT_A_STEP or len(ways) >= ENDS_AT_A_STEP


def is_from_outside(reason: str) -> bool:
    """Whether what is told of a step that was left out is how others end processes."""
    return "ended its worker's process" in reason and any(f"({how}" in reason for how in FROM_OUTSIDE)


def _reason(ways: Sequence[str]) -> str:
    most = max(sorted(set(ways)), key=ways.count)
    if most.startswith(TOOK_LONGER):
        return most
    return f"ended its worker's process {len(ways)} times ({most})"


def _end_of(note: Location) -> End:
    values = read_json(note)
    return End(Step(values["kind"], values["name"]), values["how"])
