"""The files of a run are named once, and stages that need no torch can ask for them."""

from __future__ import annotations

from pathlib import Path

from signstreams.formats.layout import EVALUATION_FILES, PRETRAINING_FILES, TRAINING_FILES, RunLayout


def test_paths_are_those_that_the_requirement_names() -> None:
    runs = RunLayout(Path("work_dirs"))
    assert runs.backbone("hand_r") == Path("work_dirs/dino_hand_r/backbone.pt")
    assert runs.pretraining_file("face", "last") == Path("work_dirs/dino_face/checkpoint_last.pt")
    assert runs.training_file("best") == Path("work_dirs/multistream_v9/best.pt")
    assert runs.evaluation_file("page") == Path("work_dirs/multistream_v9/translations.html")


def test_no_two_outputs_of_a_folder_have_one_name() -> None:
    for files in (PRETRAINING_FILES, TRAINING_FILES | EVALUATION_FILES):
        assert len(set(files.values())) == len(files)
