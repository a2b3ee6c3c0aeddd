"""How videos are cut, and what the settings say of the training that starts from the encoder."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from signstreams.config.load import build
from signstreams.corpus.clips import Clip
from signstreams.errors import UserError
from signstreams.integrate.settings import IntegrateConfig
from signstreams.sequence.settings import SequenceConfig, SequenceDataConfig, settings_of_training
from signstreams.sequence.windows import cut


def windows(num_frames: int, *spans: tuple[float, float], **data: int) -> list[range]:
    config = SequenceConfig(data=SequenceDataConfig(**data))
    clips = [Clip(str(start), "v", start_s=start, end_s=end) for start, end in spans]
    return cut(np.arange(num_frames) / 25, clips, config)


def test_a_video_without_clips_is_cut_into_equal_windows_that_hold_every_frame() -> None:
    found = windows(1000, frame_stride=2, window_frames=200)
    assert [len(one) for one in found] == [167, 167, 167]
    assert found[0].start == 0 and found[-1].stop == 1000
    assert all(before.stop == after.start for before, after in pairwise(found))
    assert max(map(len, windows(12_345, frame_stride=3, window_frames=64))) <= 64


def test_windows_end_where_clips_do_and_what_lies_between_counts_too() -> None:
    found = windows(500, (4.0, 8.0), (8.0, 14.0), frame_stride=1, window_frames=256)
    assert [(one.start, one.stop) for one in found] == [(0, 100), (100, 200), (200, 350), (350, 500)]


def test_a_rest_of_a_few_frames_is_no_window() -> None:
    found = windows(300, (0.2, 6.0), frame_stride=1, window_frames=256)
    assert [(one.start, one.stop) for one in found] == [(5, 150), (150, 300)]
    assert windows(15, frame_stride=1) == []


def test_the_encoder_is_that_of_the_training_whatever_that_changes() -> None:
    for changes in (
        {},
        {"model": {"d_model": 128, "num_heads": 8, "use_pose": False}, "mska": {"channels": [16, 32], "dropout": 0.3}},
        {"model": {"use_mska": False, "projection_dim": 32}, "data": {"frame_stride": 3, "crop_px": 112}},
        {"mska": {"gloss_fusion": "none", "ctc_weight": 0.5, "head_dim": 64}, "data": {"max_frames": 99}},
    ):
        training = IntegrateConfig.model_validate(changes)
        words = [(key, str(value)) for key, value in settings_of_training(training).items()]
        found = build(SequenceConfig, [], words).as_training()
        assert found.model == training.model and found.data.frame_stride == training.data.frame_stride
        assert found.data.crop_px == training.data.crop_px
        for name in ("channels", "num_heads", "dropout", "root_relative_hands"):
            assert getattr(found.mska, name) == getattr(training.mska, name)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mska": {"ctc_weight": 2}}, "mska.ctc_weight has no effect: sequence pretraining has no text and no gloss"),
        ({"model": {"use_mska": False}, "mska": {"num_heads": 2}}, "mska.num_heads has no effect: model.use_mska is"),
        (
            {"model": {"face_backbone": "file::x", "freeze_face_backbone": False}},
            "model.freeze_face_backbone has no effect: sequence pretraining reads features of frozen backbones",
        ),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SequenceConfig.model_validate(settings)


def test_an_unknown_key_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("prediction: {span_step: 3}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown key 'prediction.span_step' .*did you mean 'prediction.span_steps'"):
        build(SequenceConfig, [tmp_path / "a.yml"], [])
