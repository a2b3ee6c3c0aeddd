"""A stream that is a row of the table is cut, checked, pretrained by its script, and has its flags in translation."""

from __future__ import annotations

import shutil
from pathlib import Path

from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import validate
from signstreams.extract.batch import extract_videos
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.crops import list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.settings import ModelConfig
from signstreams.pretrain.settings import PretrainConfig
from signstreams.streams import STREAMS, pretrained_by
from signstreams.workflow.settings import WorkflowConfig


def test_the_mouth_is_cut_and_passes_the_contract(shared_data: Path, tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    layout.videos.mkdir()
    shutil.copy(shared_data / "clips" / "lsat_one_signer_studio.gif", layout.videos)
    (found,) = extract_videos(ExtractConfig(videos=[layout.videos], root=tmp_path, fps=2)).extracted.values()
    assert found.states["mouth"]["detected"] == found.states["face"]["detected"] > 5
    assert len(list_crops(layout.crops("mouth", found.video_id))) == found.num_frames
    findings = validate(ContractConfig(root=tmp_path, required_streams=["face", "mouth"])).findings
    assert not [finding for finding in findings if finding.severity == "error"]


def test_it_is_pretrained_and_translated_with(tmp_path: Path) -> None:
    config = PretrainConfig(train_dir=[tmp_path / "mouth"], output_dir=tmp_path / "dino_mouth")
    assert config.named_stream(pretrained_by("pretrain_dino_face.py")) == "mouth"
    assert ModelConfig(mouth_backbone="file::backbone.pt").backbones == {"mouth": "file::backbone.pt"}
    assert WorkflowConfig.model_fields["streams"].default == list(STREAMS)
