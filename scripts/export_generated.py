"""Write the files that follow from others: settings reference, rules, map of the files, schemas, environments.

docs/configuration.md and workflow/schemas/*.json come from the config classes, docs/contract_rules.md from the rules,
docs/map.md from the first sentence of every file, environment.yml and environment-dev.yml from pyproject.toml and the
lock file. Run it after a change of these; `--check` only says whether the files are in step, as the tests do.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from signstreams.cli import shown_default, takes
from signstreams.commands import COMMANDS
from signstreams.config.load import flag_names, is_section, sections
from signstreams.config.section import Section, is_fixed
from signstreams.contract.rules import RULES
from signstreams.errors import USER_ERROR_EXIT_CODE
from signstreams.workflow.settings import WorkflowConfig

PROJECT = Path(__file__).resolve().parents[1]


def main(words: list[str]) -> None:
    """Write the files; with ``--check`` leave with code 2 when one says something else."""
    if words not in ([], ["--check"]):
        print((__doc__ or "").strip())
        sys.exit(0 if words[0] in ("-h", "--help") else USER_ERROR_EXIT_CODE)
    texts = environment() | schemas() | configuration() | contract_rules() | file_map()
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if words:
            print(f"error: {path} is not in step; run scripts/export_generated.py", file=sys.stderr)
        else:
            path.write_text(texts[path], encoding="utf-8")
    sys.exit(USER_ERROR_EXIT_CODE if words and stale else 0)


# -- environment.yml, environment-dev.yml

USER_EXTRAS, DEVELOPER_EXTRA = ("extract", "workflow"), "dev"
USER_HEAD = (
    "For conda users: conda env create -f environment.yml && conda activate signstreams && pip install --no-deps -e ."
)
DEVELOPER_HEAD = "What developers need besides, for tests and linters: conda env update -f environment-dev.yml"
ENVIRONMENT_HEAD = """\
# {use}
# Written by scripts/export_generated.py from pyproject.toml and requirements.lock; a test keeps it in step.
name: signstreams
channels:
  - conda-forge
  - nodefaults
dependencies:
{python}  - pip
  - pip:
"""


def environment() -> dict[Path, str]:
    """What users need, and what developers need besides: pyproject.toml's requirements at the versions of the lock."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    locked: dict[str, list[str]] = {}  # several lines where a marker says for which Python each is
    for line, name in re.findall(
        r"^(([a-z0-9.-]+)==.*?)(?: \\)?$", (PROJECT / "requirements.lock").read_text(), re.MULTILINE
    ):
        locked.setdefault(name, []).append(line)

    def text(wanted: list[str], use: str, python: str) -> str:
        names = sorted(re.split(r"[<>=!~\[ ;]", requirement, maxsplit=1)[0].lower() for requirement in wanted)
        rows = "".join(f"      - {line}\n" for name in names for line in locked[name])
        return ENVIRONMENT_HEAD.format(use=use, python=python) + rows

    of_users = [*project["dependencies"], *(item for extra in USER_EXTRAS for item in extras[extra])]
    return {
        PROJECT / "environment.yml": text(of_users, USER_HEAD, "  - python=3.13\n"),
        PROJECT / "environment-dev.yml": text(extras[DEVELOPER_EXTRA], DEVELOPER_HEAD, ""),
    }


# -- workflow/schemas/*.json

SCHEMAS = {"config": "", "extract": "extract", "contract": "validate", "pretrain": "pretrain", "integrate": "train"}
"""Schema to the command whose config it describes; empty: the workflow's own config."""


def schemas() -> dict[Path, str]:
    """JSON schemas of the config files that people write, for editors that complete and check."""
    folder = PROJECT / "workflow" / "schemas"
    return {
        folder / f"{name}.schema.json": json.dumps(_model(command).model_json_schema(), indent=2, ensure_ascii=False)
        + "\n"
        for name, command in SCHEMAS.items()
    }


def _model(command: str) -> type[Section]:
    model: type[Section] = COMMANDS[command].model() if command else WorkflowConfig
    return model


# -- docs/configuration.md: every key of every config class with its flags, what it takes, default and meaning


@dataclass(frozen=True)
class Chapter:
    """One config class on the page."""

    title: str
    command: str
    """Name of the command that takes it; empty: the workflow's own config, which has no flags."""
    further: str = ""
    """What a reader needs besides the keys."""

    @property
    def model(self) -> type[Section]:
        return _model(self.command)

    @property
    def scripts(self) -> tuple[str, ...]:
        return COMMANDS[self.command].scripts if self.command else ()


CHAPTERS = (
    Chapter("The workflow", ""),
    Chapter("Importing a corpus", "import", "One section per corpus: [corpora.md](corpora.md)."),
    Chapter("Extraction", "extract", "More: [extraction.md](extraction.md)."),
    Chapter("Models of the tracker", "models", "More: [extraction.md](extraction.md#detector)."),
    Chapter("Data contract", "validate", "More: [data_contract.md](data_contract.md)."),
    Chapter("Splits", "split", "More: [data_contract.md](data_contract.md#indextrainvaltestcsv)."),
    Chapter(
        "Pretraining",
        "pretrain",
        "Recipes to start from: `config/pretrain/*.toml`. More: [pretraining.md](pretraining.md).",
    ),
    Chapter("The judge of backbones", "evaluate-backbone", "More: [evaluate_backbone.md](evaluate_backbone.md)."),
    Chapter("Pictures of a backbone", "show"),
    Chapter("Embedding", "embed", "More: [integration.md](integration.md#embedding)."),
    Chapter(
        "Sequence pretraining",
        "sequence",
        "More: [integration.md](integration.md#sequence-pretraining).",
    ),
    Chapter(
        "Translation model",
        "train",
        "Recipes to start from: `config/integrate/demo.yml`, `config/integrate/corpus.yml`, `config/single_signer.yml`."
        " More: [integration.md](integration.md).",
    ),
    Chapter("Evaluation", "evaluate"),
    Chapter("Boundary model", "boundaries", "More: [subtitles.md](subtitles.md#a-trained-boundary-model)."),
    Chapter(
        "Translating videos",
        "translate",
        "The videos may also come first, without `--videos`. More: [subtitles.md](subtitles.md).",
    ),
    Chapter("Comparing runs", "compare", "The runs may also come first, without `--runs`."),
    Chapter("Overview", "overview"),
    Chapter("Release", "release"),
    Chapter("Summary", "summary"),
    Chapter("Demo corpus", "demo", "More: [demo_corpus.md](demo_corpus.md)."),
)

PAGE_HEAD = """\
# Configuration

Every setting, with its flags, values and default. Generated by `scripts/export_generated.py` from the config classes
(`settings.py` of each stage in `src/signstreams/`): to change a text, edit the line below the field in the class.

## How a config is read

A command takes its settings from four places; later ones take precedence:

1. the defaults on this page;
2. config files: `--config a.toml b.yaml` (TOML, YAML or JSON). Of YAML's plain words, only true, false and null are
   special; others are text for the key's type to read (`on` is true for a switch, but not a number);
3. `--set KEY=VALUE` or `--set KEY VALUE`, as often as you like;
4. flags.

These two do the same:

    python scripts/extract_rois_v2.py --videos data/mine/videos --root data/mine --boxes-hand-scale 1.7
    python scripts/extract_rois_v2.py --videos data/mine/videos --root data/mine --set boxes.hand_scale=1.7

and so does `--config mine.toml`, where `mine.toml` holds

```toml
[boxes]
hand_scale = 1.7
```

- **Flags.** A key `a.b_c` has the flag `--a-b-c`. Some have a shorter name as well; the tables list both.
- **Switches.** `--force`, `--force true`, `--force false` and `--no-force`.
- **No value.** `none`, where the table allows it: `--set dataset.max_crops=none`.
- **Lists.** Several words after a flag (`--videos a.mp4 b.mp4`); after `--set` with commas
  (`dataset.states=detected,tracked`) or as JSON (`augmentation.global_scale=[0.4,1.0]`).
- **A wrong key** is an error that names the nearest valid one. A setting without effect is an error, too.
- `--print-config` prints the resulting config as JSON and stops; saved to a file, it can be given to `--config`.
- `--help` lists the settings of a command. `signstreams extract` and `scripts/extract_rois_v2.py` are the same.

**The workflow** has its own config: `config/config.yaml`, overridden by what you give with `--configfile`. It names the
corpus, the streams and the resources of jobs. Settings of a stage are given in a file, as single keys, or both:

```yaml
extract:
  config: config/my_extraction.toml # as --config of scripts/extract_rois_v2.py
  set: # as --set: dotted keys, which take precedence over the file
    fps: 25
    boxes.hand_scale: 1.7
pretrain:
  config: "config/pretrain/{stream}.toml" # one file per stream
  set: {epochs: 100} # for every stream
integrate:
  config: config/integrate/demo.yml
  set: {train.epochs: 60}
contract: # keys only
  set: {max_failed_fraction: 0.2}
evaluate:
  set: {decoding.num_beams: 1}
```

A list under `set` is one text: `"detected,tracked"`. Paths that a rule gives its script (root, folders of a run,
names of its files) are flags and take precedence over `set`. GPUs, cores and memory of jobs: [cluster.md](cluster.md).
"""


def configuration() -> dict[Path, str]:
    """docs/configuration.md."""
    return {PROJECT / "docs" / "configuration.md": configuration_page()}


def configuration_page() -> str:
    """The whole page, as Markdown."""
    parts = [PAGE_HEAD, "## Index\n", "\n".join(_index()), ""]
    for chapter in CHAPTERS:
        parts += _chapter(chapter)
    return "\n".join(parts).rstrip() + "\n"


def _index() -> Iterator[str]:
    for chapter in CHAPTERS:
        titles = [name for name, _ in sections(chapter.model)]
        inner = ": " + ", ".join(f"[{name}](#{_anchor(_title(chapter, name))})" for name in titles) if titles else ""
        called = f" (`{'`, `'.join(chapter.scripts)}`)" if chapter.scripts else ""
        yield f"- [{chapter.title}](#{_anchor(chapter.title)}){called}{inner}"


def _chapter(chapter: Chapter) -> Iterator[str]:
    yield f"## {chapter.title}\n"
    called = ", ".join([f"`signstreams {chapter.command}`", *(f"`scripts/{script}`" for script in chapter.scripts)])
    about = [f"{called}." if chapter.command else "", _one_line(chapter.model.__doc__), chapter.further]
    yield " ".join(filter(None, about)) + "\n"
    for name, model in (("", chapter.model), *sections(chapter.model)):
        if name:
            yield f"### {_title(chapter, name)}\n\n{_one_line(model.__doc__)}\n"
        yield from key_table(name, model, has_flags=bool(chapter.command))


def key_table(section: str, model: type[BaseModel], *, has_flags: bool) -> Iterator[str]:
    """Lines of a table of the values of one section, those of the sections below it left out."""
    rows = [
        (f"{section}.{name}" if section else name, field)
        for name, field in model.model_fields.items()
        if not is_section(field.annotation) and not is_fixed(field)
    ]
    if not rows:
        return
    columns = ["key", *(["flags"] if has_flags else []), "values", "default", "meaning"]
    yield _row(columns)
    yield _row(["---"] * len(columns))
    for key, field in rows:
        flags = [" ".join(f"`{name}`" for name in flag_names(key, field))] if has_flags else []
        yield _row([f"`{key}`", *flags, takes(field), _default(field), _one_line(field.description)])
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.get_default(call_default_factory=True) in ("", {}):
        return "empty"
    return f"`{shown_default(field)}`"


def _title(chapter: Chapter, section: str) -> str:
    return f"{chapter.title}: {section}"


def _anchor(title: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _one_line(text: str | None) -> str:
    """A docstring as Markdown: one line, and outside of code no sign that would be read as markup."""
    words = re.sub(r"``([^`]*)``", r"`\1`", " ".join((text or "").split()))
    parts = words.split("`")  # outside, inside, outside, ...
    parts[::2] = [part.replace("<", "&lt;").replace("*", r"\*") for part in parts[::2]]
    return "`".join(parts)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# -- docs/contract_rules.md

RULES_HEAD = """\
# Rules of the data contract

Generated by `scripts/export_generated.py` from `src/signstreams/contract/rules.py`. How tables are read, findings
shown, and rules that depend on the corpus: [data_contract.md](data_contract.md#rules).

| rule | severity | expected |
| --- | --- | --- |
"""


def contract_rules() -> dict[Path, str]:
    """docs/contract_rules.md: every rule with its severity."""
    rows = [_row([f"`{rule.id}`", rule.severity, rule.expects]) for rule in RULES.values()]
    return {PROJECT / "docs" / "contract_rules.md": RULES_HEAD + "\n".join(rows) + "\n"}


# -- docs/map.md: every file with its first sentence

MAPPED = {
    "": ("Snakefile",),
    "workflow": ("Snakefile", "rules/*.smk", "profiles/*/config.yaml"),
    "scripts": ("*.py",),
    "config": ("**/*.yaml", "**/*.yml", "**/*.toml"),
    "benchmarks": ("*.py",),
    "src": ("**/*.py", "**/*.html", "**/*.css", "**/*.js"),
}
"""Folder to the files of it that are on the map, in the order of the page."""
FIRST_TEXT = {
    ".html": re.compile(r"\{# (.*?) #\}", re.DOTALL),
    ".css": re.compile(r"/\* (.*?) \*/", re.DOTALL),
    ".js": re.compile(r"^((?:// .*\n)+)", re.MULTILINE),
    ".yaml": re.compile(r"\A((?:# .*\n)+)"),
}
FIRST_TEXT |= {".yml": FIRST_TEXT[".yaml"], ".toml": FIRST_TEXT[".yaml"]}
"""Suffix to where its first comment is; other files have a docstring."""
MAP_HEAD = """\
# Map of the files

Generated by `scripts/export_generated.py`: each line is the first sentence of the file itself, of a package that of its
`__init__.py`. How the parts depend on each other: [architecture.md](architecture.md#layers).
"""


def file_map(project: Path = PROJECT) -> dict[Path, str]:
    """docs/map.md: a heading for each folder, a line for each file."""
    parts = [MAP_HEAD]
    for path, about in mapped_files(project).items():
        folder = path.parent.relative_to(project).as_posix()
        heading = f"## {'The project' if folder == '.' else f'`{folder}/`'}\n"
        if heading not in parts:
            parts += ["", heading] if len(parts) > 1 else [heading]
        if path.name == "__init__.py":
            parts += [f"{_one_line(about)}\n"]
        else:
            parts.append(f"- `{path.name}`: {_one_line(about)}")
    return {project / "docs" / "map.md": "\n".join(parts) + "\n"}


def mapped_files(project: Path) -> dict[Path, str]:
    """Every file of the map with its first sentence, folder by folder; ``__init__.py`` is the first of its folder."""
    files = {
        path: place
        for place, (folder, patterns) in enumerate(MAPPED.items())
        for pattern in patterns
        for path in (project / folder).glob(pattern)
    }
    order = sorted(files, key=lambda path: (files[path], path.parent, path.name != "__init__.py", path.name))
    return {path: first_sentence(path) for path in order}


def first_sentence(path: Path) -> str:
    """What a file says of itself first, in its docstring or first comment; empty where it has neither."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in FIRST_TEXT:
        found = FIRST_TEXT[path.suffix].search(text)
        about = re.sub(r"^(#|//) ", "", found[1], flags=re.MULTILINE) if found else ""
    elif path.suffix == ".py":
        about = ast.get_docstring(ast.parse(text)) or ""
    else:  # Snakemake's language
        found = re.match(r'"""(.*?)"""', text, re.DOTALL)
        about = found[1] if found else ""
    paragraph = " ".join(about.partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph, maxsplit=1)[0]


if __name__ == "__main__":
    main(sys.argv[1:])
