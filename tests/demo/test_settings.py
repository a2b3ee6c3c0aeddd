"""Settings of the renderer: one thing at a time, and no setting without effect."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from signstreams.demo import corpus
from signstreams.demo.corpus import run
from signstreams.demo.plan import SIZES, plan
from signstreams.demo.settings import DemoConfig
from signstreams.errors import UserError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"video": "demo_000", "annotations_only": True}, "video and annotations_only exclude each other"),
        ({"contact_sheet": Path("x.png"), "annotations_only": True}, "annotations_only and contact_sheet exclude"),
        ({"annotations_only": True, "jobs": 2}, "jobs (2) has no effect with annotations_only"),
        ({"size": "huge"}, "'tiny', 'demo' or 'bench'"),
        ({"jobs": 0}, "jobs"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        DemoConfig.model_validate(settings)
    assert message in str(refused.value)


def test_every_size_can_be_asked_for() -> None:
    for size in SIZES:
        assert DemoConfig.model_validate({"size": size}).size == size


def test_run_does_what_was_asked_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []
    monkeypatch.setattr(corpus, "render_video", lambda layout, video, seed, progress: rendered.append(video.video_id))
    monkeypatch.setattr("signstreams.demo.corpus.write_contact_sheet", lambda path, seed: rendered.append(path))
    base = {"root": tmp_path, "size": "tiny"}
    said = run(DemoConfig.model_validate(base | {"video": "demo_001"}))
    assert said.endswith(f"demo_001.mp4: {plan('tiny', 0).videos[1].num_frames} frames")
    assert "8 clips of 4 videos" in run(DemoConfig.model_validate(base | {"annotations_only": True}))
    assert rendered == ["demo_001"]
    assert "4 videos, 8 clips, " in run(DemoConfig.model_validate(base))
    assert rendered[1:] == ["demo_000", "demo_001", "demo_002", "demo_003"]
    run(DemoConfig.model_validate(base | {"contact_sheet": tmp_path / "sheet.png"}))
    assert rendered[-1] == tmp_path / "sheet.png"
    with pytest.raises(UserError, match="demo_000 to demo_003"):
        run(DemoConfig.model_validate(base | {"video": "demo_9"}))
