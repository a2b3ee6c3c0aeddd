"""Metadata of one video: its fields and nothing else, finite numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from signstreams.errors import DamagedFile
from signstreams.files import read_json
from signstreams.formats.video_metadata import VideoMetadata, read_metadata


def test_metadata_with_a_foreign_field_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"video": 1}')
    with pytest.raises(DamagedFile, match="'video_id': ") as caught:
        read_metadata(tmp_path / "m.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_metadata_holds_finite_numbers_only(number: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(f'{{"source_fps": {number}, "signer": {{"hand_motion": [{number}]}}}}')
    with pytest.raises(ValidationError) as caught:
        VideoMetadata.model_validate(read_json(tmp_path / "m.json"))
    found = {error["loc"] for error in caught.value.errors() if error["type"] == "finite_number"}
    assert found == {("source_fps",), ("signer", "hand_motion", 0)}
