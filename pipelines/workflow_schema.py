"""The JSON schema of workflows.yaml, for editors, made from the dataclasses that workflows are checked by."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dhpf.pipelines.config import Workflow
from dhpf.planning.select import PAIR_SELECTS, SELECT_OPTIONS, PairSelect

_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


def workflow_file_schema() -> dict[str, Any]:
    """The schema of the whole file: a mapping of names to workflows."""
    definitions: dict[str, Any] = {}
    workflow = _schema_of(Workflow, definitions)
    del definitions["Workflow"]["properties"]["name"]  # is the key that a workflow stands under
    definitions["Workflow"]["required"].remove("name")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Workflows of Dynamic Hyperpixel Flow",
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]*$"},
        "additionalProperties": workflow,
        "$defs": definitions,
    }


def _schema_of(wanted: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return {}
    if wanted == PairSelect:
        return {"enum": list(PAIR_SELECTS)}
    if dataclasses.is_dataclass(wanted):
        return _reference(wanted, definitions)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema_of(choice, definitions) for choice in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(arguments[0], definitions)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], definitions)}
    return {"type": _PLAIN[wanted]}


def _reference(wanted: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = wanted.__name__
    if name not in definitions:
        definitions[name] = {}  # before its fields, one of which might be of its own type
        hints, said = get_type_hints(wanted), _descriptions(wanted)
        fields = dataclasses.fields(wanted)
        definitions[name] |= {
            "type": "object",
            "description": inspect.cleandoc(wanted.__doc__ or "").partition("\n\n")[0],
            "properties": {f.name: _schema_of(hints[f.name], definitions) | said.get(f.name, {}) for f in fields}
            | (_select_options() if PairSelect in hints.values() else {}),
            "required": [f.name for f in fields if _is_required(f)],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


def _select_options() -> dict[str, Any]:
    """The options of the choices of pairs, which stand beside the choice."""
    return {
        option.name: {"type": _PLAIN[option.type], "description": option.help} for option in SELECT_OPTIONS.values()
    }


def _is_required(declared: dataclasses.Field[Any]) -> bool:
    return declared.default is dataclasses.MISSING and declared.default_factory is dataclasses.MISSING


def _descriptions(wanted: Any) -> dict[str, dict[str, str]]:
    """The description of each field, from the attributes in the docstring of the class that declares it.

    Fields that share an entry there share its text.
    """
    found: dict[str, dict[str, str]] = {}
    for declaring in reversed(wanted.__mro__):
        section = inspect.cleandoc(declaring.__doc__ or "").partition("Attributes:\n")[2]
        for entry in re.split(r"\n(?=    \S)", section):
            names, separator, text = entry.strip().partition(": ")
            if separator:
                found |= {name.strip(): {"description": " ".join(text.split())} for name in names.split(",")}
    return found
