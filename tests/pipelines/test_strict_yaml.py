from __future__ import annotations

from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.strict_yaml import MAX_LETTERS, parse_yaml
from dhpf.pipelines.workflow_file import read_workflows


def test_plain_values_and_what_aliases_name() -> None:
    text = "a: &x {b: [1, 1e-3, true, yes, ~]}\nc: *x\nd: 'true'\n"
    inner = [1, 0.001, True, "yes", None]
    assert parse_yaml(text, "x") == {"a": {"b": inner}, "c": {"b": inner}, "d": "true"}


def laughs(levels: int, merged: bool) -> str:
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, levels):
        names = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} " + (f"{{<<: [{names}], k{level}: 1}}" if merged else f"[{names}]"))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(40, merged=False), "more than 50000 values"),
        (laughs(40, merged=True), "more than 50000 values"),
        ("[" * 100_000, "lists and mappings nested more than 32 deep"),
        ("{a: " * 100_000, "lists and mappings nested more than 32 deep"),
        ("a: &a [*a]", r"\*a stands within what it names"),
        ("a: &a {b: [{c: *a}]}", r"\*a stands within what it names"),
        ("a: *nothing", "not YAML"),
        ("x" * (MAX_LETTERS + 1), "letters, more than"),
        (",".join(["[1"] + ["1"] * 60_000) + "]", "more than 50000 values"),
        ("a: 1\nb: 2\na: 3", "key 'a' stands twice in line 1"),
        ("? [1, 2]\n: 3", "not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
        ("a: 2026-99-99", "not YAML"),
        ("a: 'x", "not YAML"),
        ("\0", "not YAML"),
    ],
)
def test_anything_else_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^here: .*{message}") as caught:
        parse_yaml(text, "here")
    assert len(str(caught.value)) < 400


def test_many_keys_are_read() -> None:
    assert len(parse_yaml("\n".join(f"k{n}: {n}" for n in range(20_000)), "x")) == 20_000


def test_a_file_that_took_long_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("[" * 3000 + "a")
    with pytest.raises(InputError, match="w.yaml: line 1: lists and mappings nested"):
        read_workflows(tmp_path / "w.yaml")
