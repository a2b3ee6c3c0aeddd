"""The pages that people read, and the commands in them, each with its page and line.

What counts as a command line: each line of a block fenced as ``bash``; each line of an indented block (or of one fenced
without a language) whose first line begins with a known program. Such a block that begins with anything else must be
among NOT_COMMANDS, so that no new program goes unchecked. In running text: code spans that call one of our scripts,
make or snakemake with arguments.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = [
    *(
        PROJECT / name
        for name in ("README.md", "README.es.md", "CONTRIBUTING.md", "config/README.md", "benchmarks/README.md")
    ),
    *sorted((PROJECT / "docs").glob("*.md")),
]
RUN = ("README.md", "docs/tutorial.md")  # by tests/docs/test_newcomer.py, command by command
TRANSLATED = [("README.md", "README.es.md"), ("docs/tutorial.md", "docs/tutorial.es.md")]

# Programs of others, and why no test starts them (except tests/docs/test_newcomer.py).
OTHERS = {
    ".venv/bin/pre-commit": "changes the hooks of a git clone",
    "aws": "needs somebody's storage",
    "cat": "only shows a file",
    "cd": "changes nothing",
    "conda": "makes an environment from the network",
    "cp": "copies a file",
    "ffmpeg": "is a program of the system",
    "git": "needs a remote",
    "grep": "only looks into a file",
    "head": "only shows the beginning of a file",
    "mkdir": "makes a folder",
    "pip": "installs from the network",
    "sacctmgr": "needs a Slurm cluster",
    "scontrol": "needs a Slurm cluster",
    "sinfo": "needs a Slurm cluster",
    "snakedeploy": "is not among our packages and clones from the network",
    "source": "changes a shell",
    "squeue": "needs a Slurm cluster",
    "tail": "only shows the end of a file",
    "tensorboard": "is optional, and a server that does not end",
    "touch": "changes the time of a file",
}
OURS = {"python", "torchrun", "snakemake", "make"}

# How blocks begin that show files, layouts, formulas or messages.
NOT_COMMANDS = re.compile(r"error: |array_types config|Snakefile →|<stream>/|face, hand_l|streams ─")
PLAIN = {"snakemake", "text", "yaml", "python", "toml", "json", "csv", "html", "mermaid", "diff"}
PLACEHOLDER = re.compile(r"…|\.\.\.|\[|<|\b(FILE|FOLDER|TARGET|VIDEO|DIR|NAME|PATH|RULE|JOB|N)\b|[{}]\w*[{}]?$")


@dataclass(frozen=True)
class Command:
    """A command line that a reader may copy."""

    page: str
    line: int
    text: str
    inline: bool = False

    @property
    def is_synopsis(self) -> bool:
        """Whether it has placeholders, so that it cannot be typed as it is."""
        return PLACEHOLDER.search(self.text) is not None

    @property
    def bare(self) -> str:
        """The command without a trailing comment."""
        return re.sub(r"\s+#.*", "", self.text)

    @property
    def words(self) -> list[str]:
        """The words as the shell splits them, without leading variables, ``timeout``, and anything after a pipe."""
        words = shlex.split(self.text, comments=True)
        for index, word in enumerate(words):
            if word in ("|", "&&", ">", ">>", "2>"):
                words = words[:index]
                break
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        if words[0] == "timeout":
            del words[0]
            while words[0].startswith("-"):
                del words[0]
            del words[0]
        return words

    @property
    def script(self) -> list[str] | None:
        """If it calls one of our scripts: the path and its arguments."""
        words = self.words
        if words[0] in ("python", "torchrun") or words[0].startswith("scripts/"):
            for index, word in enumerate(words):
                if re.fullmatch(r"(scripts|benchmarks)/\w+\.py", word):
                    return words[index:]
        return None

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text}"


def fences(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """Language, number of the first line and lines of each fenced block, unindented."""
    language, start, indent, body = None, 0, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"( *)```(\w*)(?: .*)?$", line)
        if fence and language is None:
            language, start, indent, body = fence[2], number + 1, len(fence[1]), []
        elif fence:
            yield str(language), start, body
            language = None
        elif language is not None:
            body.append(line[indent:])
    if language is not None:
        raise ValueError(f"line {start - 1}: a fenced block does not end")


def indented(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line and lines of each indented code block."""
    inside, in_list, after_blank, start = False, False, True, 0
    body: list[str] = []
    for number, line in enumerate([*text.splitlines(), "end"], 1):
        if re.match(r" *```", line):
            inside = not inside
        is_code = not inside and line.startswith("    ") and line.strip() and not in_list and (after_blank or body)
        if is_code:
            start = start if body else number
            body.append(line[4:])
        elif body and line.strip():
            yield start, body
            body = []
        if not line.startswith(" ") and line.strip():
            in_list = re.match(r"[-*] |\d+\. ", line) is not None
        after_blank = not line.strip()


def joined(start: int, lines: list[str]) -> Iterator[tuple[int, str]]:
    """(number, line), with lines joined that a backslash continues."""
    held, first = "", start
    for number, line in enumerate(lines, start):
        first = first if held else number
        if line.rstrip().endswith("\\"):
            held += line.rstrip()[:-1].strip() + " "
            continue
        yield first, held + line.strip()
        held = ""


def command_blocks(page: Path) -> tuple[list[Command], list[Command]]:
    """Commands of a page's blocks, and first lines of blocks that are neither commands nor in NOT_COMMANDS."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(PROJECT))
    blocks = [(start, body, language) for language, start, body in fences(text)]
    blocks += [(start, body, "") for start, body in indented(text)]
    found, unknown = [], []
    for start, body, language in sorted(blocks):
        commands = [Command(name, number, line) for number, line in joined(start, body) if line]
        commands = [command for command in commands if not command.text.startswith("#")]
        if language in PLAIN or not commands:
            continue
        if language not in ("bash", ""):
            unknown.append(Command(name, start, f"```{language}"))
        elif language == "bash" or commands[0].text.split()[0] in OURS | OTHERS.keys():
            found += commands
        elif not NOT_COMMANDS.match(body[0]):
            unknown.append(commands[0])
    return found, unknown


def inline_commands(page: Path) -> list[Command]:
    """Calls of our scripts, make or snakemake in running text."""
    text = re.sub(
        r"(?ms)^ *```.*?^ *```\s*$", lambda block: "\n" * block[0].count("\n"), page.read_text(encoding="utf-8")
    )
    found = []
    for match in re.finditer(r"`((?:python |torchrun )?scripts/\w+\.py [^`]+|(?:make|snakemake) [^`]+)`", text):
        number = text.count("\n", 0, match.start()) + 1
        words = re.sub(r"\s+", " ", match[1])
        found.append(Command(str(page.relative_to(PROJECT)), number, words, inline=True))
    return found
