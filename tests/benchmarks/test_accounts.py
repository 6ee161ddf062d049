"""Rows that are lost, doubled or changed are each counted as what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.chaos.accounts import Account, account, digest_of, stored_rows
from benchmarks.chaos.controls import ROWS, control_account
from dhpf.pipelines.outputs.store import StageOutput
from dhpf.storage import location_of

if TYPE_CHECKING:
    from pathlib import Path

RIGHT = [("a", "1"), ("b", "2"), ("c", "3")]


def test_what_is_as_it_should_be_is_exact() -> None:
    assert account(RIGHT, reversed(RIGHT)) == Account(3, 0, 0, 0, 0)
    assert account(RIGHT, RIGHT).is_exact


def test_each_fault_is_counted() -> None:
    assert account(RIGHT, RIGHT[:1]) == Account(3, 2, 0, 0, 0)
    assert account(RIGHT, [*RIGHT, ("a", "1"), ("a", "1")]) == Account(3, 0, 2, 0, 0)
    assert account(RIGHT, [("a", "1"), ("b", "9"), ("c", "3")]) == Account(3, 0, 0, 1, 0)
    assert account(RIGHT, [*RIGHT, ("d", "4")]) == Account(3, 0, 0, 0, 1)
    assert account(RIGHT, []) + account(RIGHT, RIGHT) == Account(6, 3, 0, 0, 0)


def test_times_do_not_count_and_all_else_does() -> None:
    row = {"pair_id": "1", "seconds": 0.5, "score": 0.25}
    assert digest_of(row) == digest_of(row | {"seconds": 7.0}) != digest_of(row | {"score": 0.26})


def test_a_damaged_shard_is_lost_and_an_unfinished_one_too(tmp_path: Path) -> None:
    output = StageOutput(tmp_path / "shard" / "photos" / "all")
    output.plan({"stage": "shard", "tasks": ["block-000000"]})
    commit = output.commit("block-000000", {"block.tar": b"content"}, {})
    run = location_of(tmp_path)
    assert list(stored_rows(run, ("shard", "match"))) == []
    output.finish({})
    right = list(stored_rows(run, ("shard", "match")))
    (tmp_path / "shard" / "photos" / "all" / commit.files["block.tar"]["key"]).write_bytes(b"contenT")
    assert account(right, stored_rows(run, ("shard",))) == Account(1, 1, 0, 0, 0)


def test_controls_are_seen_to_lose_and_to_double(tmp_path: Path) -> None:
    whole = "".join(f"0-{row}\n" for row in range(ROWS))
    (tmp_path / "0.rows").write_text(whole)
    assert control_account(tmp_path).is_exact
    (tmp_path / "0-again.rows").write_text(whole[: len(whole) // 2])
    assert control_account(tmp_path).doubled == ROWS // 2
    (tmp_path / "0.rows").unlink()
    assert control_account(tmp_path).lost == ROWS - ROWS // 2
