"""A field of a config class in words: flags, what it takes, default; for ``--help``, completion and the reference."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from pydantic.fields import FieldInfo

from signstreams.config.load import flag_name, union_options
from signstreams.config.section import Flag

_KINDS = {"int": "whole number", "float": "number", "str": "text", "Path": "path", "bool": "true or false"}


def flag_names(key: str, field: FieldInfo) -> list[str]:
    """All flags of a dotted key: its regular one and the further names of the field."""
    return list(dict.fromkeys([f"--{flag_name(key)}", *_extra_names(field)]))


def allows(annotation: Any, kind: type) -> bool:
    """Whether a field takes values of this type."""
    return any(option is kind or typing.get_origin(option) is kind for option in union_options(annotation))


def shown_default(field: FieldInfo) -> str:
    """The default as a user writes it; ``none`` for no value."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def type_name(annotation: Any) -> str:
    """Short name of what a flag takes: ``INT``, or the choices."""
    names = []
    for option in union_options(annotation):
        if typing.get_origin(option) is typing.Literal:
            names += [str(choice) for choice in typing.get_args(option)]
        elif option is not type(None):
            names.append(getattr(option, "__name__", str(option)).upper())
    return "|".join(names)


def choices(annotation: Any) -> list[str]:
    """The words that a field takes, if it takes only a few: choices, true and false, none."""
    found: list[str] = []
    for option in union_options(annotation):
        origin = typing.get_origin(option)
        if option is bool:
            found += ["true", "false"]
        elif origin is typing.Literal:
            found += [str(choice) for choice in typing.get_args(option)]
        elif origin in (list, tuple):
            found += choices(typing.get_args(option)[0])
    if found and type(None) in union_options(annotation):
        found.append("none")
    return found


def takes(field: FieldInfo) -> str:
    """What a field takes, with its limits: ``whole number, at least 1, or none``."""
    kinds = [_kind(option) for option in union_options(field.annotation) if option is not type(None)]
    nothing = ["or none"] if allows(field.annotation, type(None)) else []
    return ", ".join([" or ".join(kinds), *_limits(field), *nothing])


def _kind(option: Any) -> str:
    origin, inner = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is list:
        (item,) = union_options(inner[0])
        return f"list of {_kind(item)}{'' if typing.get_origin(item) is typing.Literal else 's'}"
    if origin is dict:
        return "keys with values"
    return _KINDS.get(getattr(option, "__name__", ""), str(option))


def _limits(field: FieldInfo) -> list[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = _found(field, words)
    sizes = _found(field, ("min_length", "max_length"))
    limits = [f"{words[name]} {found[name]:g}" for name in found]
    if set(found) == {"ge", "le"}:
        limits = [f"{found['ge']:g} to {found['le']:g}"]
    if sizes.get("min_length") == sizes.get("max_length") is not None:
        return [f"{sizes['min_length']} of them", *limits]
    return limits


def _found(field: FieldInfo, names: Iterable[str]) -> dict[str, float]:
    marks = _marks(field)
    return {name: getattr(mark, name) for name in names for mark in marks if hasattr(mark, name)}


def _extra_names(field: FieldInfo) -> list[str]:
    return [name for mark in _marks(field) if isinstance(mark, Flag) for name in mark.names]


def _marks(field: FieldInfo) -> list[Any]:
    marks = list(field.metadata)
    for option in typing.get_args(field.annotation):  # `Annotated[int, Flag(...)] | None` keeps the mark inside
        for mark in getattr(option, "__metadata__", ()):
            marks += mark.metadata if isinstance(mark, FieldInfo) else [mark]
    return marks
