"""One typed config from files, ``--set`` pairs and flags; every problem names the place it came from.

A text is read by the declared type of its field, never by its look: ``--set experiment.name=007`` stays ``"007"``.
"""

from __future__ import annotations

import copy
import difflib
import functools
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from signstreams.config.section import Flag, Section, is_fixed
from signstreams.errors import UserError

ConfigT = TypeVar("ConfigT", bound=Section)

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

SUFFIXES = (".toml", ".yaml", ".yml", ".json")
MAX_FILE_BYTES, MAX_VALUES, MAX_DEPTH = 100_000, 10_000, 20
"""Of a config file: bytes, values (an alias of YAML counts as often as it is used), sections within sections."""
MAX_PROBLEMS, MAX_SHOWN = 50, 100  # problems that are printed, and characters of a value or key in one


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
            text = " ".join(str(reason).split())[: 3 * MAX_SHOWN]
            problems.append(f"{path}: {text}; expected a readable TOML, YAML or JSON file")
            continue
        for key, value in flatten(content, fields):
            if key in section_keys and value is None:
                continue  # an empty YAML section: `dataset:` with every line commented out
            if key in fixed and (tuple(value) if isinstance(value, list) else value) == fixed[key]:
                continue  # the saved config of a run; files hold tuples as lists
            put(tree, key, value)
            origin[key] = str(path)
    for key, text in overrides:
        if key.count(".") >= MAX_DEPTH:
            problems.append(f"unknown key {_shown(key)} ({place})")
            continue
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
        try:
            _check_size(tree)
        except ValueError as error:
            raise UserError(f"{origin}: {error}; expected sections with values") from None
        tree = copy.deepcopy(tree)
        origin = dict.fromkeys((key for key, _ in flatten(tree, fields)), origin)
    for key, _ in sections(model):
        _ensure_section(tree, key)  # so that a missing value is named rather than its section
    problems = [
        f"{key} = {_shown(value)} ({origin.get(key, '')}): input should be a number, not true (or yes in YAML)"
        for key, value in flatten(tree, fields)
        if key in fields and _is_truth_for_number(value, fields[key].annotation)
    ]
    try:
        config = model.model_validate(tree)
    except ValidationError as error:
        raise UserError(problems + explain(error, model, origin)) from None
    if problems:
        raise UserError(problems)
    return config


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
    """Content of a TOML, YAML or JSON file. Of YAML's plain words, only true, false and null are more than text.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is something else, or refers to itself, or holds far more than a config does.
    """
    path = Path(path)
    if (suffix := path.suffix.lower()) not in SUFFIXES:
        raise ValueError(f"the ending is '{suffix}'")
    if path.exists() and not path.is_file():
        raise ValueError("is not a file")
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"holds more than {MAX_FILE_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig")
        match suffix:
            case ".toml":
                content = _read_toml(text)
            case ".json":
                content = json.loads(text, object_pairs_hook=_without_twins)
            case _:
                content = _read_yaml(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__} instead of keys with values")
    _check_size(content)
    return content


def _check_size(content: Any) -> None:
    """Refuse what is nested without end, or as good as: YAML lets a part refer to others, and to itself."""
    level, num_values = [content], 0
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            inner += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            if num_values + len(inner) > MAX_VALUES:
                raise ValueError(f"holds more than {MAX_VALUES:,} values")
        if not inner:
            return
        level, num_values = inner, num_values + len(inner)
    raise ValueError(f"is nested more than {MAX_DEPTH} levels deep, or refers to itself")


_WORD = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w\"'-]){_WORD}(?:[ \t]*\.[ \t]*{_WORD}){{{MAX_DEPTH},}}")


def _read_toml(text: str) -> Any:
    if (found := _LONG_KEY.search(text)) is not None:  # tomllib takes time and memory in the square of its parts
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"the key {_shown(found[0])} in line {line} has more than {MAX_DEPTH} parts")
    return tomllib.loads(text)


def _without_twins(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A section of these keys and values.

    Raises:
        ValueError: A key occurs twice; the last one would count.
    """
    section: dict[Any, Any] = {}
    for key, value in pairs:
        if key in section:
            raise ValueError(f"holds the key {_shown(key)} twice in one section")
        section[key] = value
    return section


def _read_yaml(text: str) -> Any:
    import yaml

    try:
        loader = _yaml_loader()(text)
        content = loader.get_single_data()
    except yaml.YAMLError as error:  # not a ValueError, unlike those of TOML and JSON
        raise ValueError(str(error)) from error
    except (LookupError, AttributeError, TypeError) as error:  # of values that are not what their tags say
        raise ValueError(f"a value is not what its tag says ({error})") from error
    return {} if content is None else content


@functools.cache
def _yaml_loader() -> Any:
    """A safe loader for which plain words are texts, as the declared type of a field says how to read one.

    YAML 1.1 makes truths of yes, no, on, off, 90 of 1:30, 8 of 010 and a date of 2026-11-28.
    """
    import yaml  # here: users of TOML do not pay for it

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            _without_twins([(key.value, None) for key in own if isinstance(key, yaml.ScalarNode)])
            return super().construct_mapping(node, deep)

        def flatten_mapping(self, node: Any) -> None:
            merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
            if sum(len(value.value) for value in merged) > MAX_VALUES or len(merged) > 1:
                raise ValueError("merges too much into one section")
            super().flatten_mapping(node)
            if len(node.value) > MAX_VALUES:
                raise ValueError(f"holds more than {MAX_VALUES:,} values")

    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
        ("float", r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+0123456789."),
        ("null", r"~|null|Null|NULL|", "~nN\0"),
        ("merge", r"<<", "<"),
    ):
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), [*first, ""])
    return Loader


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
            except (ValueError, RecursionError):
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
    if len(name) > MAX_SHOWN:  # difflib takes time in the square of it
        return ""
    last = name.rpartition(".")[2]
    # first the right name in the wrong section: `train.batch_size` for `dataset.batch_size`
    near = [other for other in names if other.rpartition(".")[2] == last] or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def explain(error: ValidationError, model: type[BaseModel], origin: dict[str, str]) -> list[str]:
    """One line per problem: key, where it was set, what was expected."""
    fields = dict(leaves(model))
    lines = []
    errors = error.errors()
    for item in errors[:MAX_PROBLEMS]:
        key = ".".join(str(part) for part in item["loc"])
        named = next((k for k in sorted(fields, key=len, reverse=True) if key == k or key.startswith(f"{k}.")), key)
        source = origin.get(named) or next((s for k, s in origin.items() if k.startswith(f"{key}.")), "")
        where = f" ({source})" if source else ""
        if item["type"] == "extra_forbidden":
            lines.append(
                f"unknown key {_shown(key)}{where}{suggest(key, [*fields, *(name for name, _ in sections(model))])}"
            )
        elif item["type"] == "missing":
            lines.append(f"missing key '{key}'; set it in a file, or give --{flag_name(key)}")
        elif item["type"] == "model_type":
            inner = next((name for name in fields if name.startswith(f"{key}.")), key)
            message = f"is a section, expected its keys; set {inner}=... or others of it"
            lines.append(f"{key} = {_shown(item['input'])}{where}: {message}")
        elif item["type"] == "value_error":  # from a validator of ours, whose text is complete
            lines.append(f"{key or 'config'}{where}: {item['ctx']['error']}")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            lines.append(f"{_shown(named, '')} = {_shown(item['input'])}{where}: {message}")
    if len(errors) > MAX_PROBLEMS:
        lines.append(f"and {len(errors) - MAX_PROBLEMS:,} more problems")
    return list(dict.fromkeys(lines))


def _shown(value: Any, quote: str | None = None) -> str:
    """A value or key as a message shows it; ``quote`` replaces the quotes of a text."""
    try:
        text = repr(value) if quote is None else f"{quote}{value}{quote}"
    except RecursionError:
        text = f"{type(value).__name__} of many levels"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


def _is_truth_for_number(value: Any, annotation: Any) -> bool:
    """Whether a number is wanted and true or false given, which pydantic takes for 1 and 0."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    kinds = set(_kinds(annotation))
    return bool(kinds & {int, float}) and bool not in kinds and any(isinstance(item, bool) for item in values)


def _kinds(annotation: Any) -> Iterator[type]:
    """Every type within an annotation; bool for a choice of true or false."""
    if isinstance(annotation, type):
        yield annotation
    for inner in typing.get_args(annotation):
        if isinstance(inner, bool):
            yield bool
        else:
            yield from _kinds(inner)


def flag_name(key: str) -> str:
    """Flag of a dotted key without the leading hyphens: ``dataset.num_workers`` is ``dataset-num-workers``."""
    return key.replace(".", "-").replace("_", "-")


def flag_names(key: str, field: FieldInfo) -> list[str]:
    """All flags of a dotted key: its regular one and the further names of the field."""
    further = [name for mark in marks_of(field) if isinstance(mark, Flag) for name in mark.names]
    return list(dict.fromkeys([f"--{flag_name(key)}", *further]))


def marks_of(field: FieldInfo) -> list[Any]:
    """What a field's type is annotated with: `Flag`, limits."""
    marks = list(field.metadata)
    for option in typing.get_args(field.annotation):  # `Annotated[int, Flag(...)] | None` keeps the mark inside
        for mark in getattr(option, "__metadata__", ()):
            marks += mark.metadata if isinstance(mark, FieldInfo) else [mark]
    return marks


def _ensure_section(tree: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            return  # a value instead of a section: pydantic says so
    tree.setdefault(last, {})
