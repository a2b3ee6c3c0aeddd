"""Tab completion of our scripts in bash and zsh: ``eval "$(python -m signstreams.completion)"``.

The shell calls the script itself with the line so far in an environment variable. The script answers from its typed
config, before anything heavy is loaded: flags, choices, keys of ``--set``. No answer leaves files to the shell.
A script that would not answer but begin its work, of ours or anybody's, is not called.
"""

from __future__ import annotations

import argparse
import os
import shlex
import typing
from collections.abc import Iterable

from pydantic.fields import FieldInfo

from signstreams.config.load import union_options

LINE, BREAKS = "SIGNSTREAMS_COMPLETE", "SIGNSTREAMS_WORDBREAKS"

SCRIPT = """\
_signstreams() {
    local python="${COMP_WORDS[0]}" script="${COMP_WORDS[1]}" IFS=$'\\n'
    case "$python" in
        *.py) script="$python" python=python ;;
    esac
    script="${script/#\\~/$HOME}"
    COMPREPLY=()
    grep -qsE '^from signstreams[.](cli|completion) import' "$script" || return 0
    COMPREPLY=($(SIGNSTREAMS_COMPLETE="${COMP_LINE:0:$COMP_POINT}" SIGNSTREAMS_WORDBREAKS="${COMP_WORDBREAKS:-}" \\
        "${python/#\\~/$HOME}" "$script" 2>/dev/null))
    case "${COMPREPLY[0]:-}" in
        *=) compopt -o nospace 2>/dev/null || true ;;
    esac
}
[ -n "${ZSH_VERSION:-}" ] && autoload -U +X bashcompinit && bashcompinit
complete -o bashdefault -o default -F _signstreams python python3 python3.11 python3.12
"""


def answer_if_asked(parser: argparse.ArgumentParser, fields: dict[str, FieldInfo] | None = None) -> None:
    """Where a shell asks what may come next, print it and leave.

    Args:
        parser: Of the script.
        fields: Config key to field, for choices and for the keys of ``--set``.
    """
    line = os.environ.get(LINE)
    if line is None:
        return
    before, word = _words(line)
    found = candidates(parser, fields or {}, before, word)
    if "=" in word and "=" in os.environ.get(BREAKS, ""):  # bash takes what follows the sign for the word
        start = word.rpartition("=")[0] + "="
        found = [candidate.removeprefix(start) for candidate in found]
    print("\n".join(found))
    raise SystemExit(0)


def candidates(
    parser: argparse.ArgumentParser, fields: dict[str, FieldInfo], before: list[str], word: str
) -> list[str]:
    """What ``word`` may become after the words ``before``; nothing where files are wanted."""
    options = parser._option_string_actions
    flag, equals, rest = word.partition("=")
    if equals and flag in options:  # --flag=value
        return [f"{flag}={value}" for value in _values(options[flag], fields, rest)]
    if word.startswith("-"):
        return sorted(option for option in options if option.startswith(word) and option.startswith("--"))
    last = next((place for place in reversed(range(len(before))) if before[place] in options), None)
    if last is not None:
        action, given = options[before[last]], len(before) - last - 1
        takes_more = action.nargs == "+" or (not given and action.nargs != 0)
        if takes_more and (found := _values(action, fields, word)):
            return found
        if takes_more and action.nargs != "?":
            return []
    return [] if word else sorted(option for option in options if option.startswith("--"))


def _values(action: argparse.Action, fields: dict[str, FieldInfo], word: str) -> list[str]:
    """Values of a flag that begin with ``word``."""
    if action.dest != "set":
        field = fields.get(action.dest)
        return _starting_with(word, [] if field is None else choices(field.annotation))
    key, equals, text = word.partition("=")
    if not equals:
        return _starting_with(word, [f"{name}=" for name in fields])
    known = choices(fields[key].annotation) if key in fields else []
    return [f"{key}={value}" for value in _starting_with(text, known)]


def choices(annotation: typing.Any) -> list[str]:
    """The words that a field takes, when it takes only a few: choices, true and false, none."""
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


def _starting_with(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(word)]


def _words(line: str) -> tuple[list[str], str]:
    """Words of the script that are complete, and the one that is being written."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    script = next((place for place, word in enumerate(words) if word.endswith(".py")), 0)
    words = words[script + 1 :]
    if line[-1:].isspace() or not words:
        return words, ""
    return words[:-1], words[-1]


if __name__ == "__main__":
    print(SCRIPT, end="")
