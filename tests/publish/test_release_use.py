"""A release as its reader uses it: the pieces of code of its README, run in its folder, far from the run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import signstreams as ss
from signstreams.commands import main
from signstreams.formats.layout import RunLayout
from signstreams.publish.release import write_release
from signstreams.publish.settings import ReleaseConfig
from signstreams.streams import STREAMS


@pytest.fixture(scope="module")
def released(demo_run: Path, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with a video in it."""
    folder = tmp_path_factory.mktemp("elsewhere") / "a release"
    config = ReleaseConfig(root=demo_run / "data/demo", work_dir=demo_run / "work_dirs", output=folder)
    write_release(config, project)
    shutil.copy(demo_run / "data/demo/videos/demo_000.mp4", folder / "video.mp4")
    return folder


def test_the_pieces_of_code_of_the_readme_run(
    released: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(released)
    text = (released / "README.md").read_text(encoding="utf-8")
    pieces = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    assert [language for language, _ in pieces] == ["python", "bash", "python"]
    space: dict[str, object] = {}
    printed = []
    for language, code in pieces:
        if language == "python":
            exec(code, space)
        else:
            program, *words = shlex.split(code)
            assert program == "signstreams"
            main(words)
        printed.append(capsys.readouterr().out)
    features = space["features"]
    assert isinstance(features, np.ndarray) and (features.shape, features.dtype) == ((2, 192), np.float32)
    _, by_command, by_code = printed
    times = re.compile(r"[\d:.]+ --> [\d:.]+  ")
    assert by_code.split() and times.sub("", by_command).split() == by_code.split()


def test_a_release_a_run_and_a_file_are_loaded_by_their_name(released: Path, demo_run: Path) -> None:
    runs = RunLayout(demo_run / "work_dirs")
    for stream in STREAMS:
        places = [released / "backbones" / stream, runs.pretraining(stream), runs.backbone(stream)]
        first, *others = [ss.load_backbone(place).state_dict() for place in places]
        for other in others:
            assert all((first[name] == other[name]).all() for name in first)
    with pytest.raises(ss.UserError, match=r"holds 3 backbones \(.*backbones/face, .*\); name one of them"):
        ss.load_backbone(released)
    for place in (released, runs.work_dir, runs.training, runs.training_file("best")):
        expected = released / "translation" / "best.pt" if place == released else runs.training_file("best")
        assert ss.load_translator(place).trained.path == expected
