"""Reads untrusted YAML strictly, as plain values, and within bounds that a person's file never meets."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from dhpf.errors import InputError

MAX_LETTERS, MAX_DEPTH, MAX_VALUES = 1_000_000, 32, 50_000
"""Of a text; of lists and mappings in each other; of values, where each use of an alias counts all that it names."""


def parse_yaml(text: str, where: str) -> Any:
    """The values of a YAML text.

    Args:
        where: how to call the text in an error.

    Raises:
        InputError: not YAML, a key twice in one mapping, or beyond the bounds.
    """
    if len(text) > MAX_LETTERS:
        raise InputError(f"{where}: {len(text)} letters, more than {MAX_LETTERS} are not read")
    try:
        _require_small(text, where)
        return yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise InputError(f"{where}: not YAML ({why})") from error


def _require_small(text: str, where: str) -> None:
    """Counts values and depth from the parser's events.

    Before anything is made of them, because aliases of aliases multiply, and because the parser's own time grows with
    the square of the depth.
    """
    open_sizes, anchors, sizes = [0], [""], dict[str, int]()
    for event in yaml.parse(text, yaml.SafeLoader):
        line = 0 if event.start_mark is None else event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_sizes.append(1)
            anchors.append(event.anchor or "")
        elif isinstance(event, yaml.CollectionEndEvent):
            size = open_sizes.pop()
            sizes[anchors.pop()] = size
            open_sizes[-1] += size
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor or ""] = 1
            open_sizes[-1] += 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors:
                raise InputError(f"{where}: line {line}: *{event.anchor} stands within what it names")
            open_sizes[-1] += sizes.get(event.anchor or "", 1)
        if len(open_sizes) > MAX_DEPTH + 1:
            raise InputError(f"{where}: line {line}: lists and mappings nested more than {MAX_DEPTH} deep")
        if open_sizes[-1] > MAX_VALUES:
            raise InputError(f"{where}: line {line}: more than {MAX_VALUES} values, what aliases repeat included")


class _StrictLoader(yaml.SafeLoader):
    """Reads plain YAML values only, refuses duplicate keys, and takes only `true` and `false` as truth values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        seen = set()
        for key in keys:
            if isinstance(key, Hashable):  # the others are refused below
                if key in seen:
                    raise yaml.YAMLError(f"key {key!r} stands twice in line {node.start_mark.line + 1} ff.")
                seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))
# YAML 1.1 takes 1e-3 for text, because it has no point.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
