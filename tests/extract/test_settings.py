"""Settings of extraction: what shapes results, and what would have no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from signstreams.extract.settings import ExtractConfig


def test_stated_settings_are_those_that_shape_results(tmp_path: Path) -> None:
    config = ExtractConfig(videos=[tmp_path], root=tmp_path)
    assert set(config.settings()) == {
        *("fps", "frames_fps", "crop_px", "jpeg_quality", "max_buffer_mib"),
        *("face_privacy", "spans_only", "span_padding_s"),
        *("detector", "tracker", "precomputed", "signer", "boxes"),
    }
    assert not {"models", "download", "device"} & set(config.settings()["tracker"])
    of_holistic = ExtractConfig(videos=[tmp_path], root=tmp_path, detector="holistic").settings()
    assert "tracker" not in of_holistic and "holistic" in of_holistic  # as before there was a tracker
    assert "folder" not in config.settings()["precomputed"]  # the points count, not where they lie


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"span_padding_s": 1.0}, "span_padding_s has no effect: spans_only is false; leave one of them out"),
        ({"precomputed": {"folder": "points"}}, r"precomputed\.folder has no effect: detector is 'tracker'"),
        ({"precomputed": {"min_confidence": 0.1}}, r"precomputed\.min_confidence has no effect"),
        ({"holistic": {"stride": 2}}, r"holistic\.stride has no effect: detector is 'tracker'"),
        ({"detector": "holistic", "tracker": {"stride": 2}}, r"tracker\.stride has no effect: detector is 'holistic'"),
        (
            {"detector": "precomputed", "precomputed": {"folder": "points"}, "holistic": {"stride": 2}},
            r"holistic\.stride has no effect: detector is 'precomputed'",
        ),
        ({"detector": "precomputed"}, r"needs the folder of its points; set precomputed\.folder"),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ExtractConfig.model_validate({"videos": ["v.mp4"], "root": "c", **settings})


def test_a_default_that_is_spelled_out_is_no_error() -> None:
    whole = ExtractConfig.model_validate({"videos": ["v.mp4"], "root": "c"})
    assert ExtractConfig.model_validate(whole.model_dump()) == whole
