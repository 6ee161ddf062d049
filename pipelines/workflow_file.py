"""Reads workflows.yaml strictly: an unknown key, a wrong type or a missing value is an error of one clear sentence."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dhpf.config import ModelConfig, located_weights, nearest_name
from dhpf.errors import InputError, require_no_credentials
from dhpf.pairs import open_pair_source
from dhpf.pipelines.config import SourceConfig, Workflow
from dhpf.pipelines.strict_yaml import MAX_LETTERS, parse_yaml
from dhpf.planning.select import SELECT_OPTIONS, PairList, PairSelect, gather_select
from dhpf.regular_files import is_file, read_regular
from dhpf.storage import Location, is_uri, location_of

PATH_OPTIONS = ("root", "pair_list")
"""Options of pair sources that are paths, relative to the data folder."""

PACKAGED_FILE = Path(__file__).with_name("workflows.yaml")
"""The workflows that come with the package."""

MAX_FILE_BYTES = 4 * MAX_LETTERS
"""Workflow files of more bytes than this are not read."""

FILE_HERE = Path("workflows.yaml")
"""The user's own workflow file, in the current folder."""


def workflow_file(named: Path | None) -> Path:
    """The workflow file to read: the one that was named, the user's own, or the project's."""
    if named is not None:
        return named
    return FILE_HERE if FILE_HERE.exists() else PACKAGED_FILE


def read_workflows(path: Path) -> dict[str, dict[str, Any]]:
    """The raw workflows of a file by name.

    Raises:
        InputError: the file is missing or cannot be read, or is not a YAML mapping of names to workflows.
    """
    try:
        text = read_regular(path, f"workflow file {path}", MAX_FILE_BYTES).decode()
        content = parse_yaml(text, f"workflow file {path}")
    except FileNotFoundError as error:
        raise InputError(f"workflow file {path}: no such file; name one with --file") from error
    except OSError as error:
        raise InputError(f"workflow file {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"workflow file {path}: not YAML ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"workflow file {path}: must map workflow names to their stages")
    for name, workflow in content.items():
        if not isinstance(name, str) or not isinstance(workflow, dict):
            raise InputError(f"workflow file {path}: {name!r} must be a name with a mapping of stages below it")
    return content


def load_workflow(path: Path, name: str, overrides: Sequence[str], data_folder: Path | Location) -> Workflow:
    """One workflow, with `stage.key=value` overrides applied and everything checked.

    Args:
        data_folder: folder or bucket that relative paths in the sources' options are relative to.

    Raises:
        InputError: see the module.
    """
    workflows = read_workflows(path)
    if name not in workflows:
        raise InputError(f"workflow {name!r}: not in {path}; {nearest_name(name, workflows)}")
    raw = dict(workflows[name])
    for override in overrides:
        _override(raw, override)
    require_no_credentials(name, raw, "give them to the machines, in their environment or by a role")
    if "name" in raw:
        raise InputError(f"{name}: unknown key 'name'; a workflow's name is the one that it stands under")
    if "gates" in raw:
        raise InputError(f"{name}: the key 'gates' is called 'promotion' now; rename it")
    workflow: Workflow = _convert(raw | {"name": name}, Workflow, name)
    data = location_of(data_folder)
    if workflow.shard is not None:
        sources = {key: _resolved(source, data) for key, source in workflow.shard.sources.items()}
        workflow = dataclasses.replace(workflow, shard=dataclasses.replace(workflow.shard, sources=sources))
    if workflow.match is not None:
        collections = {
            key: dataclasses.replace(
                collection,
                root=_located(collection.root, data),
                select=_with_located_list(collection.select, data),
            )
            for key, collection in workflow.match.collections.items()
        }
        workflow = dataclasses.replace(workflow, match=dataclasses.replace(workflow.match, collections=collections))
    _check_weights(workflow.model, f"{name}.model")
    _check_references(workflow)
    return workflow


def method_model(workflow: Workflow, method: Mapping[str, Any], place: str) -> ModelConfig:
    """The workflow's model with the fields that a method overrides."""
    base = dataclasses.asdict(workflow.model)
    if "selection" in method:
        base |= {"layers": (), "exponent": None}
    if "backbone" in method:
        base |= {"weights": None}
    model: ModelConfig = _convert(base | dict(method), ModelConfig, place)
    return model


def search_model(workflow: Workflow) -> ModelConfig:
    """The model that the search stage finds layers for: with all of them, and with a fixed selection's exponent."""
    assert workflow.search is not None
    single = {"selection": "fixed", "layers": (0,)} | dict(workflow.search.model)
    model = method_model(workflow, single, f"{workflow.name}.search.model")
    exponent = model.appearance_exponent
    return dataclasses.replace(model, selection="all", layers=(), projection="none", exponent=exponent)


def _override(raw: dict[str, Any], text: str) -> None:
    place, separator, value = text.partition("=")
    keys = place.strip().split(".")
    if not separator or not all(keys):
        raise InputError(f"--set {text!r}: write stage.key=value")
    parsed = parse_yaml(value, f"--set {text if len(text) <= 200 else text[:200] + '...'!r}")
    level = raw
    for depth, key in enumerate(keys[:-1]):
        if keys[:depth] == ["shard", "sources"] and key not in level:
            # A new source is given as a whole; a single option of an unknown source is a misspelling.
            raise InputError(f"--set {text!r}: no source {key!r}; {nearest_name(key, level)}")
        inner = level.get(key)
        if inner is not None and not isinstance(inner, dict):
            raise InputError(f"--set {text!r}: {key!r} is a single value, it has no {keys[-1]!r}")
        level[key] = dict(inner or {})
        level = level[key]
    level[keys[-1]] = parsed


def _resolved(source: SourceConfig, data: Location) -> SourceConfig:
    options = dict(source.options)
    for key in PATH_OPTIONS:
        if isinstance(options.get(key), str):
            options[key] = _located(options[key], data)
    return dataclasses.replace(source, options=options)


def _with_located_list(select: PairSelect, data: Location) -> PairSelect:
    return PairList(_located(select.pair_list, data)) if isinstance(select, PairList) else select


def _located(path: str, data: Location) -> str:
    return path if is_uri(path) or Path(path).is_absolute() else str(data / path)


def _check_references(workflow: Workflow) -> None:
    name, sources = workflow.name, workflow.shard.sources if workflow.shard else {}
    for key, source in sources.items():
        known = open_pair_source(source.kind, source.options).splits
        for split in source.splits:
            if split not in known:
                place = f"{name}.shard.sources.{key}.splits"
                raise InputError(f"{place}: {source.kind} has no split {split!r}; {nearest_name(split, known)}")
    shard_sets = workflow.shard.given_sets if workflow.shard else ()
    wanted = [(stage, on) for stage, config in workflow.stages.items() for on in config.shard_sets]
    wanted += [("promotion", on) for on in (workflow.promotion.on if workflow.promotion else ())]
    for stage, on in wanted:
        if on not in shard_sets:
            choices = nearest_name(on, shard_sets) if shard_sets else "the workflow has no shard stage"
            raise InputError(f"{name}.{stage}.on: no shard set {on!r}; {choices}")
    if workflow.search is not None:
        _check_weights(search_model(workflow), f"{name}.search.model")
    if workflow.train is not None and workflow.train.gates_start == "searched":
        _check_method(workflow, "searched", f"{name}.train.gates_start")
    for place, method in _methods(workflow).items():
        _check_method(workflow, method, place)


STAGE_MODELS = {"trained": "train", "searched": "search"}
"""The models that a stage of the same workflow makes, by the words that choose them, and the stage."""


def _check_method(workflow: Workflow, method: str | Mapping[str, Any], place: str) -> None:
    """Checks a method's model, because a mistake would otherwise show only after the stages before."""
    if isinstance(method, Mapping):
        _check_weights(method_model(workflow, method, place), place)
    elif method in STAGE_MODELS:
        stage = STAGE_MODELS[method]
        if getattr(workflow, stage) is None:
            raise InputError(f"{place}: {method!r} needs a {stage} stage, which workflow {workflow.name} does not have")
    elif not method.startswith("models:/") and not is_file(method):
        raise InputError(
            f"{place}: no checkpoint {method!r}; give 'trained', 'searched', a checkpoint's path, models:/NAME@ALIAS, "
            "or fields of the model"
        )


def _check_weights(model: ModelConfig, place: str) -> None:
    if model.weights is not None:
        try:
            located_weights(model.weights)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error


def _methods(workflow: Workflow) -> dict[str, str | Mapping[str, Any]]:
    methods: dict[str, str | Mapping[str, Any]] = {}
    if workflow.evaluate is not None:
        methods |= {f"{workflow.name}.evaluate.methods.{k}": m for k, m in workflow.evaluate.methods.items()}
    if workflow.match is not None:
        methods[f"{workflow.name}.match.model"] = workflow.match.model
    return methods


# -- plain values -> dataclasses ---------------------------------------------------------------------------------


def _convert(value: Any, wanted: Any, place: str) -> Any:
    """A YAML value as the type that a field declares; the error names the place."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is Any or wanted == PairSelect:
        return value
    if dataclasses.is_dataclass(wanted):
        return _convert_dataclass(value, wanted, place)
    if origin is Literal:
        if value not in arguments:
            raise InputError(
                f"{place}: unknown value {value!r}; {nearest_name(str(value), [str(a) for a in arguments])}"
            )
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, place)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{place}: {value!r} should be a list")
        return tuple(_convert(item, arguments[0], f"{place}[{n}]") for n, item in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{place}: {value!r} should be a mapping")
        return {str(key): _convert(item, arguments[1], f"{place}.{key}") for key, item in value.items()}
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise InputError(f"{place}: {value!r} should be {_NAMES.get(wanted, wanted)}")
    return value


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "empty"}


def _convert_union(value: Any, choices: Sequence[Any], place: str) -> Any:
    errors = []
    for choice in choices:
        try:
            return _convert(value, choice, place)
        except InputError as error:
            # Inside a mapping the deeper error says more than "should be text".
            errors.append((dataclasses.is_dataclass(choice) and isinstance(value, Mapping), error))
    if any(deeper for deeper, _ in errors):
        raise next(error for deeper, error in errors if deeper)
    names = " or ".join(
        _NAMES.get(choice, "a list" if get_origin(choice) is tuple else "a mapping") for choice in choices
    )
    raise InputError(f"{place}: {value!r} should be {names}")


def _convert_dataclass(value: Any, wanted: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: {value!r} should be a mapping")
    types_of = get_type_hints(wanted)
    fields = {field.name: field for field in dataclasses.fields(wanted)}
    takes_select = types_of.get("select") == PairSelect
    known = {*fields, *SELECT_OPTIONS} if takes_select else fields
    for key in value:
        if key not in known:
            raise InputError(f"{place}: unknown key {key!r}; {nearest_name(str(key), known)}")
    if takes_select:
        value = _convert_select(value, fields["select"].default, place)
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if not optional and name not in value:
            raise InputError(f"{place}: key {name!r} is missing")
    converted = {key: _convert(item, types_of[key], f"{place}.{key}") for key, item in value.items()}
    try:
        return wanted(**converted)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _convert_select(value: Mapping[str, Any], default: Any, place: str) -> Mapping[str, Any]:
    try:
        return gather_select(value, default)
    except InputError as error:
        raise InputError(f"{place}.{error}") from error
