"""What the notes of earlier trials prove."""

from pathlib import Path

import pytest

from dhpf.pipelines.blocks.caution import Step
from dhpf.pipelines.blocks.trials import LOADING, UNSEEN, End, Trials, fatal_steps
from dhpf.storage import location_of

IMAGE, PAIR = Step.of_image("cats/\udcff.jpg"), Step.of_pair(7)


def test_notes_say_the_last_step_and_how_the_process_ended(tmp_path: Path) -> None:
    trials = Trials(location_of(tmp_path / "block"))
    assert trials.ends() == []
    first = trials.new()
    assert trials.ends() == [End(LOADING, UNSEEN)]
    first.begin(IMAGE)
    assert trials.ends() == [End(IMAGE, UNSEEN)]
    assert first.end("SIGSEGV") == End(IMAGE, "SIGSEGV")
    trials.new().begin(PAIR)
    assert set(trials.ends()) == {End(IMAGE, "SIGSEGV"), End(PAIR, UNSEEN)}
    for note in (tmp_path / "block").iterdir():
        note.write_bytes(note.read_bytes().replace(b"SIGSEGV", b"SIGSEGW"))
    assert trials.ends() == [End(PAIR, UNSEEN)]


@pytest.mark.parametrize(
    ("ways", "reason"),
    [
        (["SIGSEGV"], None),
        (["SIGSEGV", "SIGKILL, perhaps for want of memory"], None),
        (["SIGKILL", UNSEEN], None),
        (["SIGSEGV", "SIGSEGV"], "ended its worker's process 2 times (SIGSEGV)"),
        (["exit status 1", "SIGABRT", "SIGABRT"], "ended its worker's process 3 times (SIGABRT)"),
        (["took longer than 3 s", "took longer than 3 s"], "took longer than 3 s"),
        (["SIGKILL", UNSEEN, "SIGKILL"], "ended its worker's process 3 times (SIGKILL)"),
    ],
)
def test_a_step_is_fatal_when_it_ends_processes_again_and_again(ways: list[str], reason: str | None) -> None:
    others = [End(Step.of_pair(number), "SIGSEGV") for number in range(3)]
    found = fatal_steps([*(End(PAIR, how) for how in ways), *others, End(LOADING, "SIGSEGV"), End(LOADING, "SIGSEGV")])
    assert dict(found) == ({PAIR: reason} if reason else {})
