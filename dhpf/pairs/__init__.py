"""Pair sources, which give a workflow its pairs: each is one file in this folder and one line in PAIR_SOURCES."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

from dhpf.config import nearest_name, require_choice
from dhpf.errors import InputError
from dhpf.pairs.caltech101 import Caltech101
from dhpf.pairs.image_folder import ImageFolder
from dhpf.pairs.pf_pascal import PFPascal
from dhpf.pairs.pf_willow import PFWillow
from dhpf.pairs.photo_warps import PhotoWarps
from dhpf.pairs.source import PairSource
from dhpf.pairs.spair import SPair
from dhpf.planning.select import SELECT_OPTIONS, PairSelect, gather_select

PAIR_SOURCES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "caltech101": Caltech101,
        "image_folder": ImageFolder,
        "pf_pascal": PFPascal,
        "pf_willow": PFWillow,
        "photo_warps": PhotoWarps,
        "spair": SPair,
    }
)


def open_pair_source(kind: str, options: Mapping[str, Any]) -> PairSource:
    """The pair source of a kind with these options.

    Raises:
        InputError: an unknown kind or option, an option missing, of the wrong type or out of range.
    """
    require_choice("pair source", kind, PAIR_SOURCES)
    source_class = PAIR_SOURCES[kind]
    types = get_type_hints(source_class)
    fields = {field.name: field for field in dataclasses.fields(source_class)}
    takes_select = types.get("select") == PairSelect
    known = {*fields, *SELECT_OPTIONS} if takes_select else {*fields}
    for name, value in options.items():
        if name == "pairing" and takes_select:
            raise InputError(f"pair source {kind}: option pairing is called select now, as in select: within-folders")
        if name not in known:
            raise InputError(f"pair source {kind}: unknown option {name!r}; {nearest_name(name, known)}")
        if not (takes_select and name in ("select", *SELECT_OPTIONS)):
            _require_type(kind, name, value, types[name])
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in options:
            raise InputError(f"pair source {kind}: option {name} is missing")
    given = _with_select(kind, options, source_class.select) if takes_select else options
    source: PairSource = source_class(**given)
    return source


def _require_type(kind: str, name: str, value: object, wanted: Any) -> None:
    accepted = get_args(wanted) or (wanted,)
    if type(value) in accepted or (float in accepted and type(value) is int):
        return
    names = " or ".join(t.__name__ for t in accepted if t is not type(None))
    raise InputError(f"pair source {kind}: option {name} is {value!r}, expected {names}")


def _with_select(kind: str, options: Mapping[str, Any], default: PairSelect) -> Mapping[str, Any]:
    try:
        return gather_select(options, default)
    except InputError as error:
        raise InputError(f"pair source {kind}: {error}") from error
