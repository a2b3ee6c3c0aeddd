"""The workflow's own config: what no job should have to find out."""

from __future__ import annotations

from typing import Any

import pytest

from signstreams.config.load import build, check
from signstreams.errors import UserError
from signstreams.publish.settings import ReleaseConfig
from signstreams.workflow.settings import WorkflowConfig


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"pretrain": {"gpus": -1}}, "pretrain.gpus = -1 (config): input should be greater than or equal to 0"),
        ({"integrate": {"gpus": -2}}, "integrate.gpus = -2 (config): input should be greater than or equal to 0"),
        (
            {"corpus": {"val_fraction": 0.5, "test_fraction": 0.5}},
            "corpus (config): val_fraction (0.5) and test_fraction (0.5) leave nothing for train",
        ),
        (
            {"pretrain": {"set": {"dataset.states": ["detected", "tracked"]}}},
            "pretrain.set (config): dataset.states is a list, expected one text;"
            " write dataset.states: 'detected,tracked'",
        ),
        (
            {"extract": {"set": {"boxes": {"hand_scale": 1.8}}}},
            "extract.set (config): boxes is a section, expected single keys; write boxes.hand_scale: ...",
        ),
        (
            {"integrate": {"set": {"resume": "never"}}},
            "config: integrate.set: resume = 'never' would begin from scratch each time a job is stopped; leave it out,"
            " and remove state/ in the job's folder of work_dir to train again",
        ),
    ],
)
def test_what_no_job_could_use_is_refused(tree: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        check(WorkflowConfig, tree, "config")
    assert expected in caught.value.problems


def test_the_demo_corpus_has_recipes_of_its_own_and_lends_them_to_nobody() -> None:
    own = {"corpus": {"root": "data/mine", "videos": "videos"}}
    demo, mine = check(WorkflowConfig, {}, "x"), check(WorkflowConfig, own, "x")
    assert (demo.pretrain.config, demo.extract.set) == ("config/pretrain/demo_{stream}.toml", {"crop_px": 112})
    assert (mine.pretrain.config, mine.extract.set) == ("config/pretrain/{stream}.toml", {})
    said = {"extract": {"set": {"crop_px": 64, "fps": 25}}, "pretrain": {"config": "a.toml"}}
    told = check(WorkflowConfig, said, "x")
    assert (told.pretrain.config, told.extract.set) == ("a.toml", {"crop_px": 64, "fps": 25})
    file = check(WorkflowConfig, {"extract": {"config": "mine.toml", "set": {"fps": 25}}}, "x")
    assert file.extract.set == {"fps": 25}  # crop_px of the file holds


def test_the_numbers_of_gpus_that_the_docs_name_are_taken() -> None:
    assert [check(WorkflowConfig, {"pretrain": {"gpus": n}}, "x").pretrain.gpus for n in (0, 4, "auto")] == [
        0,
        4,
        "auto",
    ]


def test_a_shared_backbone_needs_both_hands_and_the_default_is_not_shown() -> None:
    """Pages and releases that are finished hold the settings as they were: a new key would make them outdated."""
    with pytest.raises(UserError, match=r"pretrain\.hands = 'shared': streams lacks hand_l, expected both hands"):
        check(WorkflowConfig, {"pretrain": {"hands": "shared"}, "streams": ["face", "hand_r"]}, "x")
    assert "hands" not in check(WorkflowConfig, {}, "x").shown()["pretrain"]
    shared = check(WorkflowConfig, {"pretrain": {"hands": "shared"}}, "x")
    assert shared.shown()["pretrain"]["hands"] == "shared" and "sequence" not in shared.shown()
    assert "release" not in shared.shown()
    tree = {"pretrain": {"hands": "shared"}, "sequence": True, "release": {"weights_license": "mit"}}
    every = check(WorkflowConfig, tree, "x")
    stages = {"stages": ["s2g"], "stage_set": {"s2g": {"train.epochs": 1}}}
    in_stages = check(WorkflowConfig, {"integrate": stages}, "x")
    assert not stages.keys() & every.shown()["integrate"].keys()
    assert stages.items() <= in_stages.shown()["integrate"].items()
    assert every.shown() | {"integrate": ...} == every.model_dump(mode="json") | {"integrate": ...}


def test_the_release_is_told_what_is_given_as_its_command_reads_it() -> None:
    assert check(WorkflowConfig, {}, "x").card_settings() == {}
    given = {"consent_note": "Signed, all of them: yes", "languages": ["aed", "es"], "datasets": ["own/lsa"]}
    told = check(WorkflowConfig, {"release": given}, "x").card_settings()
    read = build(ReleaseConfig, [], list(told.items())).card().model_dump(exclude_defaults=True)
    assert read == given
