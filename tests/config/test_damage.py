"""Damaged and hostile config files: one line each within a second, and no value that is read as another."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from signstreams.config.load import MAX_DEPTH, MAX_FILE_BYTES, MAX_PROBLEMS, build, check, read_file
from signstreams.config.section import Section
from signstreams.errors import UserError
from signstreams.extract.settings import ExtractConfig
from signstreams.integrate.settings import IntegrateConfig
from signstreams.pretrain.settings import PretrainConfig
from signstreams.workflow.settings import WorkflowConfig

SEED, CASES = 16, 500


class Inner(Section):
    rate: float = 0.1
    betas: list[float] = [0.9]
    weights: dict[str, float] = {}
    flag: bool = False


class Config(Section):
    name: str = "a"
    epochs: int = 10
    patience: int | None = None
    inner: Inner = Inner()


def refused(path: Path, text: str, damage: ModuleType) -> list[str]:
    path.write_text(text, encoding="utf-8")
    with damage.bounded(most_s=4), pytest.raises(UserError) as caught:
        build(Config, [path], [])
    assert all("\n" not in line and len(line) < 700 for line in caught.value.problems)
    return caught.value.problems


BOMB = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9) if i else 1}]" for i in range(9))
MERGES = "\n".join(
    f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 9)}]}}" if i else "x0: &x0 {a: 1}" for i in range(9)
)
NESTED = 60_000
ENDLESS = {
    "itself.yml": ("inner: &a {rate: *a}\n", "or refers to itself"),
    "list.yml": ("name: &a [*a]\n", "or refers to itself"),
    "bomb.yml": (BOMB, "holds more than 10,000 values"),
    "merges.yml": (MERGES, "values"),
    "deep.yml": ("a: " + "[" * NESTED, "nested too deeply"),
    "deeper.yml": ("a: " + "{a: " * 5000, "nested too deeply"),
    "indented.yml": ("\n".join(" " * i + "a:" for i in range(400)), "levels deep"),
    "many dots.toml": (".".join("a" * 50_001) + " = 1\n", "holds more than 100,000 bytes"),
    "dots.toml": (".".join("a" * 40_000) + " = 1\n", f"has more than {MAX_DEPTH} parts"),
    "quoted.toml": (" . ".join(['"a"'] * 15_000) + " = 1\n", f"has more than {MAX_DEPTH} parts"),
    "table.toml": ("[" + ".".join("a" * 40_000) + "]\n", f"has more than {MAX_DEPTH} parts"),
    "inline.toml": ("x = {" + ".".join("a" * 40_000) + " = 1}\n", f"has more than {MAX_DEPTH} parts"),
    "deep.toml": ("a = " + "[" * NESTED, "nested too deeply"),
    "deep.json": ('{"a": ' + "[" * NESTED, "nested too deeply"),
    "large.yml": ("# " + "x" * MAX_FILE_BYTES, f"holds more than {MAX_FILE_BYTES:,} bytes"),
    "keys.json": (json.dumps({f"epoch{i}": 1 for i in range(6000)}), f"and {6000 - MAX_PROBLEMS:,} more problems"),
    "word.json": (json.dumps({"epochs": "x" * 90_000}), "(90,002 characters)"),
    "key.json": (json.dumps({"x" * 90_000: 1}), "(90,002 characters)"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_a_line_within_a_second(name: str, tmp_path: Path, damage: ModuleType) -> None:
    text, expected = ENDLESS[name]
    assert expected in refused(tmp_path / name, text, damage)[-1]


def test_keys_and_lists_of_the_command_line_have_an_end_too(damage: ModuleType) -> None:
    with damage.bounded(most_s=3), pytest.raises(UserError) as caught:
        build(Config, [], [(".".join("a" * 50_000), "1"), ("epochs", "9" * 5000), ("inner.betas", "[" * 90_000)])
    assert all(len(line) < 300 for line in caught.value.problems)


def test_what_is_no_file_is_not_read(tmp_path: Path, damage: ModuleType) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "zero.yml").symlink_to("/dev/zero")
    (tmp_path / "folder.yml").mkdir()
    for name in ("pipe.yml", "zero.yml", "folder.yml"):
        with damage.bounded(most_s=3), pytest.raises(UserError, match=r"is not a file; expected a readable"):
            build(Config, [tmp_path / name], [])


READ_AS_ANOTHER = {
    "epochs: yes": "epochs = 'yes'",
    "epochs: on": "epochs = 'on'",
    "epochs: true": "epochs = True (",
    "epochs: 1:30": "epochs = '1:30'",
    "epochs: 0x1f": "epochs = '0x1f'",
    "patience: off": "patience = 'off'",
    "patience: true": "patience = True (",
    "inner: {rate: 1:30}": "inner.rate = '1:30'",
    "inner: {rate: false}": "inner.rate = False (",
    "inner: {betas: [0.9, true]}": "inner.betas = [0.9, True] (",
    "inner: {weights: {a: true}}": "inner.weights = {'a': True} (",
    "epochs: 1\nepochs: 2": "holds the key 'epochs' twice",
    "inner: {rate: 1, rate: 2}": "holds the key 'rate' twice",
    "epochs: !!bool maybe": "not what its tag says",
    "epochs: !!timestamp x": "not what its tag says",
}


@pytest.mark.parametrize("text", READ_AS_ANOTHER)
def test_no_word_of_yaml_is_taken_for_a_number_and_no_key_counts_twice(
    text: str, tmp_path: Path, damage: ModuleType
) -> None:
    (line,) = refused(tmp_path / "a.yml", text, damage)
    assert READ_AS_ANOTHER[text] in line and str(tmp_path / "a.yml") in line


def test_a_word_of_yaml_is_read_by_the_type_of_its_key(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text(
        "name: no\nepochs: 010\npatience: ~\ninner: {flag: yes, rate: 1e-3, betas: [.5, -1., 1_000], weights: }\n",
        encoding="utf-8",
    )
    tree = read_file(path)
    assert tree == {
        "name": "no", "epochs": "010", "patience": None,
        "inner": {"flag": "yes", "rate": "1e-3", "betas": [0.5, -1.0, 1000], "weights": None},
    }  # fmt: skip
    path.write_text(path.read_text().replace(", weights: }", "}"), encoding="utf-8")
    config = build(Config, [path], [])
    assert (config.name, config.epochs, config.patience) == ("no", 10, None)
    assert (config.inner.flag, config.inner.rate, config.inner.betas) == (True, 0.001, [0.5, -1.0, 1000.0])
    path.write_text("base: &base {rate: 0.5, flag: off}\ninner: {<<: *base, rate: 0.25}\n", encoding="utf-8")
    assert read_file(path)["inner"] == {"rate": 0.25, "flag": "off"}


def test_json_and_toml_have_the_same_limits(tmp_path: Path, damage: ModuleType) -> None:
    (line,) = refused(tmp_path / "a.json", '{"epochs": 1, "epochs": 2}', damage)
    assert "holds the key 'epochs' twice" in line
    (line,) = refused(tmp_path / "a.toml", "epochs = true", damage)
    assert line.startswith("epochs = True (") and "input should be a number" in line


def test_a_tree_that_another_reader_made_has_them_too() -> None:
    tree = yaml.safe_load("corpus: &a {root: *a}")
    with pytest.raises(UserError, match="workflow config: is nested more than 20 levels deep, or refers to itself"):
        check(WorkflowConfig, tree, "workflow config")
    with pytest.raises(UserError, match=r"corpus\.demo_seed = True \(workflow config\): input should be a number"):
        check(WorkflowConfig, {"corpus": {"demo_seed": True}}, "workflow config")


@pytest.fixture(scope="session")
def recipes(project: Path) -> list[tuple[type[Section], str, bytes]]:
    """Config class, ending and bytes of the recipes of this checkout, in all three formats."""
    found = []
    for folder, model in (("pretrain", PretrainConfig), ("integrate", IntegrateConfig)):
        for path in sorted((project / "config" / folder).iterdir()):
            found.append((model, path.suffix, path.read_bytes()))
            tree = read_file(path)
            found.append((model, ".json", json.dumps(tree).encode()))
            found.append((model, ".yml", yaml.safe_dump(tree).encode()))
    found.append((WorkflowConfig, ".yaml", (project / "config/config.yaml").read_bytes()))
    found.append((ExtractConfig, ".toml", b"fps = 25\n[boxes]\n[holistic]\nstride = 2\n"))
    return found


def test_no_damage_ends_in_a_traceback_a_hang_or_2_gb(
    tmp_path: Path, recipes: list[tuple[type[Section], str, bytes]], damage: ModuleType
) -> None:
    rng = random.Random(SEED)
    num_refused = 0
    for number in range(CASES):
        model, suffix, data = rng.choice(recipes)
        path = tmp_path / f"config{suffix}"
        path.write_bytes(damage.mutated(data, rng))
        try:
            with damage.bounded(most_s=4):
                build(model, [path], [])
        except UserError as error:
            num_refused += 1
            assert all("\n" not in line and len(line) < 1500 for line in error.problems), error.problems
        except BaseException as error:
            error.add_note(f"case {number}, {suffix}: {path.read_bytes()!r}")
            raise
    assert num_refused > CASES / 3
