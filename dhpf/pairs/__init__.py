"""Pair sources: one file and one line here each."""

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

PAIR_SOURCES: Mapping[str, type] = MappingProxyType(
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
    for name, value in options.items():
        if name not in fields:
            raise InputError(f"pair source {kind}: unknown option {name!r}; {nearest_name(name, fields)}")
        accepted = get_args(types[name]) or (types[name],)
        if float in accepted and type(value) is int:
            continue
        if type(value) not in accepted:
            wanted = " or ".join(t.__name__ for t in accepted if t is not type(None))
            raise InputError(f"pair source {kind}: option {name} is {value!r}, expected {wanted}")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in options:
            raise InputError(f"pair source {kind}: option {name} is missing")
    source: PairSource = source_class(**options)
    return source
