"""Files < --set < flags, each with the type its field declares; problems in one line each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import model_validator

from signstreams.cli import leading_words_as, parse
from signstreams.config.section import Flag, Section


class Dataset(Section):
    batch_size: Annotated[int, Flag("--batch-size")] = 64
    """Crops in a batch."""
    persistent_workers: bool = False
    """Keep worker processes."""
    max_crops: Annotated[int, Flag("--at-most")] | None = None
    """At most so many."""


class Experiment(Section):
    name: str = "unnamed"
    """Name."""
    tags: Annotated[list[str], Flag("--experiment-tag")] = []
    """Tags."""


class Config(Section):
    """Toy stage."""

    train_dir: list[Path]
    """Folders of crops."""
    algorithm: Literal["dino", "ibot"] = "dino"
    """Loss."""
    learning_rate: float = 1e-3
    """Peak."""
    dataset: Dataset = Dataset()
    experiment: Experiment = Experiment()

    @model_validator(mode="after")
    def _small_rate(self) -> Config:
        if self.learning_rate > 1:
            raise ValueError(f"learning_rate is {self.learning_rate}, expected at most 1")
        return self


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def failure(argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as left:
        parse(Config, argv)
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_flags_win_over_set_and_set_wins_over_files(tmp_path: Path) -> None:
    toml = write(
        tmp_path, "a.toml", 'train_dir = ["a"]\nlearning_rate = 0.1\n[dataset]\nbatch_size = 1\nmax_crops = 9\n'
    )
    yml = write(tmp_path, "b.yml", "learning_rate: 1e-2\ndataset:\n  batch_size: 2\n")
    config = parse(Config, ["--config", toml, "--config", yml, "--set", "dataset.batch_size=3", "--batch-size", "4"])
    assert (config.dataset.batch_size, config.learning_rate, config.dataset.max_crops) == (4, 0.01, 9)
    assert parse(Config, ["--config", toml, yml, "--set", "dataset.batch_size=3"]).dataset.batch_size == 3
    assert parse(Config, ["--config", toml, yml]).dataset.batch_size == 2


def test_set_takes_one_word_or_two(tmp_path: Path) -> None:
    base = ["--train-dir", "a"]
    assert parse(Config, [*base, "--set", "experiment.name", "file::a=b c:d"]).experiment.name == "file::a=b c:d"
    assert parse(Config, [*base, "--set", "experiment.name=007"]).experiment.name == "007"
    two = parse(Config, [*base, "--set", "learning_rate=1e-4", "--set", "dataset.persistent_workers", "true"])
    assert two.learning_rate == 1e-4
    assert two.dataset.persistent_workers is True


def test_lists_booleans_and_none_have_their_spellings() -> None:
    config = parse(
        Config,
        ["--train-dir", "a, b", "c", "--experiment-tag", "x", "--experiment-tag", "y", "--dataset-persistent-workers"],
    )
    assert config.train_dir == [Path("a, b"), Path("c")]
    assert config.experiment.tags == ["x", "y"]
    assert config.dataset.persistent_workers
    off = parse(Config, ["--train-dir", "a", "--no-dataset-persistent-workers", "--dataset-max-crops", "none"])
    assert not off.dataset.persistent_workers
    assert off.dataset.max_crops is None
    assert parse(Config, ["--train-dir", "a", "--at-most", "3"]).dataset.max_crops == 3
    listed = parse(Config, ["--set", 'train_dir=["a,b"]', "--set", "experiment.tags=p,q"])
    assert listed.train_dir == [Path("a,b")]
    assert listed.experiment.tags == ["p", "q"]


def test_words_before_the_first_flag_are_values_of_one() -> None:
    assert leading_words_as("--runs", ["a", "b", "--tag", "c"]) == ["--runs", "a", "b", "--tag", "c"]
    assert leading_words_as("--runs", ["--tag", "c"]) == ["--tag", "c"]
    assert leading_words_as("--runs", []) == []


def test_a_printed_config_reads_back_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(Config, ["--train-dir", "a", "--batch-size", "7", "--print-config"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert parse(Config, ["--config", write(tmp_path, "c.json", text)]).dataset.batch_size == 7
    assert json.loads(text)["dataset"]["persistent_workers"] is False


def test_every_problem_of_a_file_is_one_line_with_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'train_dir = ["a"]\nalgoritm = "dino"\n[dataset]\nbatch_size = "many"\n[experiment]\nbatch_size = 3\n'
    lines = failure(["--config", write(tmp_path, "bad.toml", text)], capsys)
    assert any(
        line.startswith("error: unknown key 'algoritm'") and "did you mean 'algorithm'" in line for line in lines
    )
    assert any("dataset.batch_size = 'many'" in line and "bad.toml" in line for line in lines)
    assert any("unknown key 'experiment.batch_size'" in line and "'dataset.batch_size'" in line for line in lines)
    assert len(lines) == 4


def test_an_unknown_flag_or_a_missing_key_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(["--train-dir", "a", "--batchsize", "3"], capsys)[0] == (
        "error: unknown argument '--batchsize'; did you mean '--batch-size'?"
    )
    assert failure([], capsys)[0].startswith("error: missing key 'train_dir'")
    assert "expected at most 1" in failure(["--train-dir", "a", "--learning-rate", "2"], capsys)[0]
    assert "KEY=VALUE" in failure(["--train-dir", "a", "--set", "learning_rate"], capsys)[0]
    assert "algorithm = 'dno'" in failure(["--train-dir", "a", "--algorithm", "dno"], capsys)[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.toml", "x ="), ("a.json", "{"), ("a.yml", "a: [1"), ("a.yaml", "- 1"), ("a.ini", ""), ("absent.toml", None)],
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name if text is None else Path(write(tmp_path, name, text))
    lines = failure(["--config", str(path)], capsys)
    assert lines[0].startswith(f"error: {path}: ")
    assert len(lines) == 2


def test_an_empty_yaml_section_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yml", "train_dir: [a]\ndataset:\n  # batch_size: 3\n")
    assert parse(Config, ["--config", path]).dataset.batch_size == 64


def test_help_lists_flags_with_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Config, ["--help"])
    text = capsys.readouterr().out
    assert "--dataset-batch-size" in text
    assert "--batch-size" in text
    assert "Crops in a batch." in text


def test_a_log_line_is_one_line_and_a_traceback_keeps_its_own() -> None:
    code = (
        "import logging; from signstreams.cli import start_logging; start_logging()\n"
        "log = logging.getLogger('signstreams.x')\n"
        "log.info('%s: cannot be read', 'ñ\\x1b[2J\\n.json')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('a bug')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, *rest = done.stderr.splitlines()
    assert (first, second) == (r"INFO ñ\x1b[2J\n.json: cannot be read", "ERROR a bug")
    assert rest[0].startswith("Traceback") and rest[-1].startswith("ZeroDivisionError")
