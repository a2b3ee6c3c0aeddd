"""One typed config from files, ``--set`` pairs and flags; every problem names the place it came from.

A text is read by the declared type of its field, never by its look: ``--set experiment.name=007`` stays ``"007"``.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from signstreams.config.section import Section, is_fixed
from signstreams.errors import UserError

ConfigT = TypeVar("ConfigT", bound=Section)

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def build(
    model: type[ConfigT],
    files: list[Path],
    overrides: list[tuple[str, str]],
    flags: dict[str, Any] | None = None,
    *,
    place: str = "--set",
) -> ConfigT:
    """Merge files, overrides (dotted keys and texts) and flags (dotted key to text or texts) into one checked config.

    Of several files the later ones win, overrides win over files, flags over both; ``place`` names the overrides.

    Raises:
        UserError: One line per problem.
    """
    fields = dict(leaves(model))
    section_keys, fixed = {key for key, _ in sections(model)}, dict(fixed_values(model))
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    problems = []
    for path in files:
        try:
            content = read_file(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(f"{path}: {' '.join(str(reason).split())}; expected a readable TOML, YAML or JSON file")
            continue
        for key, value in flatten(content, fields):
            if key in section_keys and value is None:
                continue  # an empty YAML section: `dataset:` with every line commented out
            if key in fixed and (tuple(value) if isinstance(value, list) else value) == fixed[key]:
                continue  # the saved config of a run; files hold tuples as lists
            put(tree, key, value)
            origin[key] = str(path)
    for key, text in overrides:
        put(tree, key, read_text(text, fields[key].annotation) if key in fields else text)
        origin[key] = f"{place} {key}"
    for key, value in (flags or {}).items():
        items = isinstance(value, list)
        put(tree, key, [item.strip() for item in value] if items else read_text(value, fields[key].annotation))
        origin[key] = f"--{flag_name(key)}"
    problems += [
        f"'{key}' ({source}): is fixed at {fixed[key]!r} and is not a setting; leave it out"
        for key, source in origin.items()
        if key in fixed
    ]
    if problems:
        raise UserError(problems)
    return check(model, tree, origin)


def check(model: type[ConfigT], tree: dict[str, Any], origin: dict[str, str] | str) -> ConfigT:
    """Validate nested dictionaries; ``origin`` is the place of each dotted key, or of all.

    Raises:
        UserError: One line per problem.
    """
    fields = dict(leaves(model))
    if isinstance(origin, str):
        origin = dict.fromkeys((key for key, _ in flatten(tree, fields)), origin)
    for key, _ in sections(model):
        _ensure_section(tree, key)  # so that a missing value is named rather than its section
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, model, origin)) from None


def split_setting(words: list[str]) -> list[tuple[str, str]]:
    """``["a.b", "text"]`` or ``["a.b=text", ...]`` as (key, text) pairs.

    Raises:
        UserError: When the words are neither.
    """
    if len(words) == 2 and "=" not in words[0]:
        return [(words[0], words[1])]
    pairs = [word.partition("=") for word in words]
    if not all(equals for _, equals, _ in pairs):
        raise UserError(f"--set {' '.join(words)}: expected KEY=VALUE or KEY VALUE")
    return [(key, text) for key, _, text in pairs]


def leaves(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting below ``model``; sections and fixed fields are left out."""
    return ((key, field) for key, field in _walk(model) if not is_section(field.annotation) and not is_fixed(field))


def fixed_values(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every fixed field below ``model``."""
    return ((key, field.default) for key, field in _walk(model) if is_fixed(field))


def sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Dotted key and class of every section below ``model``."""
    return ((key, field.annotation) for key, field in _walk(model) if is_section(field.annotation))


def is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Whether a field's type is a config class."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of everything below ``model``; a section comes before what it holds."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        if is_section(field.annotation):
            yield from _walk(field.annotation, f"{prefix}{name}.")


def settings_of(config: BaseModel) -> dict[str, Any]:
    """A config as a file that reads back: plain values, fixed fields left out."""
    fixed: dict[str, Any] = {}
    for key, _ in fixed_values(type(config)):
        put(fixed, key, True)
    return config.model_dump(mode="json", exclude=fixed)


def read_file(path: Path) -> dict[str, Any]:
    """Content of a TOML, YAML or JSON file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is something else.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    match Path(path).suffix.lower():
        case ".toml":
            content = tomllib.loads(text)
        case ".json":
            content = json.loads(text)
        case ".yaml" | ".yml":
            import yaml  # here: users of TOML do not pay for it

            try:
                content = yaml.safe_load(text)
            except yaml.YAMLError as error:  # not a ValueError, unlike those of TOML and JSON
                raise ValueError(str(error)) from error
            content = {} if content is None else content
        case suffix:
            raise ValueError(f"the ending is '{suffix}'")
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__} instead of keys with values")
    return content


def read_text(text: str, annotation: Any) -> Any:
    """Turn a text of the command line into a value for ``annotation``; pydantic checks it afterwards."""
    options = union_options(annotation)
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    if bool in options and text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    if any(typing.get_origin(option) in (list, tuple, dict) for option in options):
        if text[:1] in ("[", "{"):
            try:
                return json.loads(text)
            except ValueError:
                return text  # pydantic names the key and what it expected
        return [part.strip() for part in text.split(",") if part]
    return text


def union_options(annotation: Any) -> list[Any]:
    """Types that a field takes: ``Annotated[int, ...] | None`` gives int and NoneType."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = typing.get_args(annotation) if is_union else (annotation,)
    return [getattr(option, "__origin__", option) if hasattr(option, "__metadata__") else option for option in options]


def flatten(tree: dict[str, Any], fields: dict[str, FieldInfo], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested dictionaries; a dictionary that is itself a field's value stays whole."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value and key not in fields:
            yield from flatten(value, fields, f"{key}.")
        else:
            yield key, value


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted ``key`` in nested dictionaries."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[last] = value


def suggest(name: str, known: typing.Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known name, or an empty text."""
    names = list(known)
    last = name.rpartition(".")[2]
    # first the right name in the wrong section: `train.batch_size` for `dataset.batch_size`
    near = [other for other in names if other.rpartition(".")[2] == last] or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def explain(error: ValidationError, model: type[BaseModel], origin: dict[str, str]) -> list[str]:
    """One line per problem: key, where it was set, what was expected."""
    fields = dict(leaves(model))
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        named = next((k for k in sorted(fields, key=len, reverse=True) if key == k or key.startswith(f"{k}.")), key)
        source = origin.get(named) or next((s for k, s in origin.items() if k.startswith(f"{key}.")), "")
        where = f" ({source})" if source else ""
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key '{key}'{where}{suggest(key, [*fields, *(name for name, _ in sections(model))])}")
        elif item["type"] == "missing":
            lines.append(f"missing key '{key}'; set it in a file, or give --{flag_name(key)}")
        elif item["type"] == "value_error":  # from a validator of ours, whose text is complete
            lines.append(f"{key or 'config'}{where}: {item['ctx']['error']}")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            lines.append(f"{named} = {item['input']!r}{where}: {message}")
    return list(dict.fromkeys(lines))


def flag_name(key: str) -> str:
    """Flag of a dotted key without the leading hyphens: ``dataset.num_workers`` is ``dataset-num-workers``."""
    return key.replace(".", "-").replace("_", "-")


def _ensure_section(tree: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            return  # a value instead of a section: pydantic says so
    tree.setdefault(last, {})
