"""Files and pairs become one checked config; a problem names the key, where it was set and the nearest name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from signstreams.config.load import (
    build,
    check,
    flag_name,
    flatten,
    leaves,
    put,
    read_file,
    read_text,
    sections,
    split_setting,
    suggest,
    union_options,
)
from signstreams.config.section import Fixed, Flag, Section
from signstreams.errors import UserError


class Optimizer(Section):
    rate: float = Field(1e-3, gt=0)
    betas: list[float] = [0.9, 0.999]
    groups: dict[str, float] = {}


class Train(Section):
    epochs: Annotated[int, Flag("--epochs")] = 10
    optimizer: Optimizer = Optimizer()


class Stage(Section):
    name: str
    train: Train = Train()
    crops: Path | None = None


def problems(tree: dict[str, Any], origin: dict[str, str] | str = "a.toml") -> list[str]:
    with pytest.raises(UserError) as caught:
        check(Stage, tree, origin)
    return caught.value.problems


def test_keys_of_sections_within_sections_have_dots() -> None:
    assert [key for key, _ in leaves(Stage)] == [
        "name",
        "train.epochs",
        "train.optimizer.rate",
        "train.optimizer.betas",
        "train.optimizer.groups",
        "crops",
    ]
    assert [key for key, _ in sections(Stage)] == ["train", "train.optimizer"]
    assert flag_name("train.optimizer.max_rate") == "train-optimizer-max-rate"


def test_a_dictionary_that_is_a_value_stays_whole() -> None:
    tree = {"name": "a", "train": {"optimizer": {"groups": {"mska": 0.1}, "rate": 2}}}
    flat = dict(flatten(tree, dict(leaves(Stage))))
    assert flat == {"name": "a", "train.optimizer.groups": {"mska": 0.1}, "train.optimizer.rate": 2}
    again: dict[str, Any] = {}
    for key, value in flat.items():
        put(again, key, value)
    assert again == tree


def test_a_later_source_wins_and_leaves_the_other_keys(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.json"
    first.write_text("name: a\ntrain:\n  epochs: 1\n  optimizer:\n    rate: 1\n", encoding="utf-8")
    second.write_text('{"train": {"epochs": 2}}', encoding="utf-8")
    config = build(Stage, [first, second], [("train.optimizer.betas", "0.5,0.6")], {"name": "b"})
    assert (config.name, config.train.epochs, config.train.optimizer.rate) == ("b", 2, 1.0)
    assert config.train.optimizer.betas == [0.5, 0.6]


def test_each_problem_names_the_place_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[train]\nepochs = 1.5\n[train.optimizer]\nrates = 1\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        build(Stage, [path], [("train.optimizer.rate", "0")])
    assert sorted(caught.value.problems) == [
        "missing key 'name'; set it in a file, or give --name",
        f"train.epochs = 1.5 ({path}): input should be a valid integer, got a number with a fractional part",
        "train.optimizer.rate = '0' (--set train.optimizer.rate): input should be greater than 0",
        f"unknown key 'train.optimizer.rates' ({path}); did you mean 'train.optimizer.rate'?",
    ]


def test_a_value_in_place_of_a_section_is_a_line_and_no_traceback() -> None:
    (line,) = problems({"name": "a", "train": 3})
    assert line == "train = 3 (a.toml): is a section, expected its keys; set train.epochs=... or others of it"
    (line,) = problems({"name": "a", "train": {"optimizer": [1]}})
    assert line.startswith("train.optimizer = [1] (a.toml): is a section, expected its keys; set train.optimizer.rate=")
    with pytest.raises(UserError) as caught:
        build(Stage, [], [("name", "a"), ("train", "3")])
    assert caught.value.problems[0].startswith("train = '3' (--set train): is a section")


def test_a_problem_inside_a_list_is_told_of_its_key() -> None:
    (line,) = problems({"name": "a", "train": {"optimizer": {"betas": [0.9, "x"]}}})
    assert line.startswith("train.optimizer.betas = 'x' (a.toml): input should be a valid number")


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("007", str, "007"),
        ("true", str, "true"),
        ("True", bool, True),
        ("off", bool | Literal["auto"], False),
        ("auto", bool | Literal["auto"], "auto"),
        ("NULL", int | None, None),
        ("none", str, "none"),
        ("a, b,", list[str], ["a", "b"]),
        ('["a, b"]', list[str], ["a, b"]),
        ("[1", list[float], "[1"),
        ('{"mska": 0.1}', dict[str, float], {"mska": 0.1}),
        ("", list[str], []),
    ],
)
def test_the_declared_type_reads_a_text(text: str, annotation: Any, value: Any) -> None:
    assert read_text(text, annotation) == value


def test_marks_of_a_type_are_no_option() -> None:
    assert union_options(Annotated[int, Flag("--a")] | None) == [int, type(None)]
    assert union_options(Annotated[int, Flag("--a")]) == [int]


def test_pairs_of_set_are_one_word_or_two() -> None:
    assert split_setting(["a.b=c=d"]) == [("a.b", "c=d")]
    assert split_setting(["a.b", "c d"]) == [("a.b", "c d")]
    assert split_setting(["a=1", "b="]) == [("a", "1"), ("b", "")]
    for words in (["a"], ["a", "b", "c"], ["a=1", "b"]):
        with pytest.raises(UserError, match="KEY=VALUE"):
            split_setting(words)


def test_the_right_word_under_another_section_is_nearest() -> None:
    known = ["dataset.batch_size", "train.batch_sizes", "name"]
    assert suggest("train.batch_size", known) == "; did you mean 'dataset.batch_size'?"
    assert suggest("nam", known) == "; did you mean 'name'?"
    assert suggest("zzzzzz", known) == ""


def test_a_file_begins_with_a_byte_order_mark_or_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("\ufeffname: a\n", encoding="utf-8")
    assert read_file(path) == {"name": "a"}
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert read_file(path) == {}


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        read_file(path)


class Limits(Section):
    max_tries: Annotated[int, Fixed()] = 10
    """Draws that may fail."""
    rounds: int = 3


class Guarded(Section):
    limits: Limits = Limits()


def test_a_fixed_field_is_recorded_and_read_back_but_is_no_setting() -> None:
    assert [key for key, _ in leaves(Guarded)] == ["limits.rounds"]
    assert "max_tries" not in json.dumps(Guarded.model_json_schema()["$defs"]["Limits"]["properties"])
    saved = Guarded().model_dump()
    assert saved == {"limits": {"max_tries": 10, "rounds": 3}}
    assert check(Guarded, saved, "saved.json").limits.max_tries == 10


def test_a_fixed_field_is_refused_where_settings_are_given_and_with_another_value_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[limits]\nmax_tries = 10\n")
    assert build(Guarded, [file], []).limits.max_tries == 10  # the saved config of a run is a config
    file.write_text("[limits]\nmax_tries = 11\n")
    for files, pairs in (([file], []), ([], [("limits.max_tries", "10")])):
        with pytest.raises(UserError, match=r"'limits.max_tries' \(.*\): is fixed at 10 and is not a setting"):
            build(Guarded, files, pairs)
    with pytest.raises(UserError, match="max_tries = 11: is fixed at 10"):
        check(Guarded, {"limits": {"max_tries": 11}}, "saved.json")
