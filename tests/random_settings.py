"""Settings drawn at random from a config's own fields, within what they declare, and small."""

from __future__ import annotations

import contextlib
import random
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from signstreams.config.load import is_section, union_options
from signstreams.config.section import is_fixed

NUMBERS = (0, 1, 2, 3, 0.1, 0.3, 0.5, 0.9, 5.0, 16, 64)
ModelT = TypeVar("ModelT", bound=BaseModel)


def first_valid(build: Callable[[], ModelT], *, tries: int = 200) -> ModelT:
    """What ``build`` gives when it first raises nothing: most draws hold settings that exclude each other."""
    for _ in range(tries - 1):
        with contextlib.suppress(ValidationError):
            return build()
    return build()


def draw(model: type[BaseModel], rng: random.Random, *, share: float, leave: set[str]) -> dict[str, Any]:
    """A tree with a ``share`` of the fields drawn anew; names and sections in ``leave`` stay as they are."""
    tree: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name in leave or is_fixed(field):
            continue
        if is_section(field.annotation):
            section = draw(typing.cast(type[BaseModel], field.annotation), rng, share=share, leave=leave)
            if section:
                tree[name] = section
        elif rng.random() < share and (values := list(_values(field))):
            tree[name] = rng.choice(values)
    return tree


def merged(base: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """``other`` over ``base``, section by section."""
    tree = dict(base)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(tree.get(key), dict)
        tree[key] = merged(tree[key], value) if both else value
    return tree


def _values(field: FieldInfo) -> Iterator[Any]:
    """Some that the field may take; none for texts, paths and lists."""
    declared: Any = TypeAdapter(field.rebuild_annotation())
    for option in union_options(field.annotation):
        candidates: tuple[Any, ...] = ()
        if typing.get_origin(option) is typing.Literal:
            candidates = typing.get_args(option)
        elif option is types.NoneType:
            candidates = (None,)
        elif option is bool:
            candidates = (False, True)
        elif option in (int, float):
            candidates = tuple(option(number) for number in NUMBERS if option(number) == number)
        for candidate in candidates:
            with contextlib.suppress(ValidationError):
                yield declared.validate_python(candidate)
