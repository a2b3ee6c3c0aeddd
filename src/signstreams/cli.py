"""Command line of one typed config: files, then ``--set``, then flags; the last one wins.

Every key has a flag: ``dataset.num_workers`` is ``--dataset-num-workers``; a field may carry further names (`Flag`).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic.fields import FieldInfo

from signstreams.config.load import (
    build,
    flag_names,
    leaves,
    marks_of,
    settings_of,
    split_setting,
    suggest,
    union_options,
)
from signstreams.config.section import Flag, Section
from signstreams.errors import USER_ERROR_EXIT_CODE, UserError, print_problems
from signstreams.ids import printable
from signstreams.language import tr

ConfigT = TypeVar("ConfigT", bound=Section)


def parse(
    model: type[ConfigT], argv: list[str] | None = None, *, doc: str | None = None, prog: str | None = None
) -> ConfigT:
    """Build ``model`` from the command line, or leave with code 2 and one line per problem.

    Without ``argv``, ``doc`` for ``--help`` and ``prog`` these are the process's arguments, the class's docstring and
    the file's name.
    """
    fields = dict(leaves(model))
    parser = _Parser(fields, doc or model.__doc__ or "", prog)
    complete(parser)
    args = vars(parser.parse_args(argv))
    show = args.pop("print_config")
    files: list[Path] = args.pop("config")
    settings: list[list[str]] = args.pop("set")
    try:
        overrides = [pair for words in settings for pair in split_setting(words)]
        config = build(model, files, overrides, args)
    except UserError as error:
        parser.fail(error.problems)
    if show:
        print(json.dumps(settings_of(config), indent=2, ensure_ascii=False))
        parser.exit()
    return config


def complete(parser: argparse.ArgumentParser) -> None:
    """Where a shell asks what may come next, answer and leave; before anything heavy is imported."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options=False, print_suppressed=True)


def start_logging() -> None:
    """Show what our own modules log; of libraries, what is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("signstreams").setLevel(logging.INFO)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # the first picture ever waits for a cache


class _OneLine(logging.Formatter):
    """Escapes control characters of a message, which names files of others; a traceback below it keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def leading_words_as(flag: str, words: list[str]) -> list[str]:
    """Arguments in which the words before the first flag are values of ``flag``: ``script.py A B --tag x``."""
    count = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return [*([flag, *words[:count]] if count else []), *words[count:]]


class _Parser(argparse.ArgumentParser):
    def __init__(self, fields: dict[str, FieldInfo], doc: str, prog: str | None) -> None:
        super().__init__(
            prog=prog,
            usage="%(prog)s [--config FILE ...] [--set KEY=VALUE ...] [FLAGS]",
            description=doc,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument(
            "--config",
            type=Path,
            action="extend",
            nargs="+",
            default=[],
            metavar="FILE",
            help="TOML, YAML or JSON; of several, later files win",
        )
        setting = self.add_argument(
            "--set",
            action="append",
            nargs="+",
            default=[],
            metavar="KEY=VALUE",
            help="set one key, as KEY=VALUE or KEY VALUE; wins over files",
        )
        _complete_by(setting, lambda prefix, **_: _setting_candidates(fields, prefix))
        self.add_argument("--print-config", action="store_true", help="print the final config as JSON and stop")
        groups: dict[str, Any] = {}
        for key, field in fields.items():
            section = key.rpartition(".")[0]
            if section not in groups:
                groups[section] = self.add_argument_group(f"[{section}]" if section else "settings")
            _add_flag(groups[section], key, field)

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            word = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
            message = f"unknown argument '{word}'{suggest(word, known)}"
        self.fail([message])

    def fail(self, lines: list[str]) -> NoReturn:
        # all processes that torchrun starts have the same command line, and those of a machine the same files
        if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("LOCAL_RANK", "0") == "0":
            print_problems(lines)
            print(tr("try: %(command)s", command=f"{self.prog} --help"), file=sys.stderr)
        raise SystemExit(USER_ERROR_EXIT_CODE)


def _add_flag(group: Any, key: str, field: FieldInfo) -> None:
    names = flag_names(key, field)
    default = "required" if field.is_required() else f"default: {shown_default(field)}"
    text = f"{field.description or ''} ({default})".replace("%", "%%")
    options = {"dest": key, "default": argparse.SUPPRESS, "help": text}
    if allows(field.annotation, bool):
        flag = group.add_argument(*names, nargs="?", const="true", metavar="true|false", **options)
        negative = {**options, "help": argparse.SUPPRESS}
        group.add_argument(*(f"--no-{name[2:]}" for name in names), action="store_const", const="false", **negative)
    elif allows(field.annotation, list) or allows(field.annotation, tuple):
        flag = group.add_argument(*names, nargs="+", action="extend", metavar="ITEM", **options)
    elif bare := next((mark.bare for mark in marks_of(field) if isinstance(mark, Flag) and mark.bare), None):
        flag = group.add_argument(*names, nargs="?", const=bare, metavar=type_name(field.annotation), **options)
    else:
        flag = group.add_argument(*names, metavar=type_name(field.annotation), **options)
    if words := choices(field.annotation):
        _complete_by(flag, lambda **_: words)


def _complete_by(action: argparse.Action, completer: Callable[..., list[str]]) -> None:
    action.completer = completer  # type: ignore[attr-defined]  # read by argcomplete


def _setting_candidates(fields: dict[str, FieldInfo], prefix: str) -> list[str]:
    """Keys that may follow ``--set``, or the values of the key that is there."""
    key, equals, _ = prefix.partition("=")
    if not equals:
        return [f"{name}=" for name in fields]
    return [f"{key}={value}" for value in choices(fields[key].annotation)] if key in fields else []


# -- A field in words: flags, what it takes, default; for ``--help``, completion and the reference of all settings

_KINDS = {"int": "whole number", "float": "number", "str": "text", "Path": "path", "bool": "true or false"}


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
    names = (*words, "min_length", "max_length")
    found = {name: getattr(mark, name) for name in names for mark in marks_of(field) if hasattr(mark, name)}
    limits = [f"{words[name]} {found[name]:g}" for name in words if name in found]
    if found.keys() & words.keys() == {"ge", "le"}:
        limits = [f"{found['ge']:g} to {found['le']:g}"]
    if found.get("min_length") == found.get("max_length") is not None:
        return [f"{found['min_length']} of them", *limits]
    return limits
