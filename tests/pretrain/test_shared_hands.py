"""One backbone for both hands: left ones are mirrored wherever a run reads them, and its files say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.cli import parse
from signstreams.engine import checkpoint
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.formats.arrays import StreamTrack, Tracks, write_tracks
from signstreams.formats.crops import CropWriter
from signstreams.pretrain.crop_index import build_index, copy_to_scratch
from signstreams.pretrain.data import Key, ViewDataset, find_crops, load_whole
from signstreams.pretrain.pictures import PICTURE_FILES, show_backbone
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.selection import track_values
from signstreams.pretrain.settings import AugmentationConfig, PretrainConfig, ShowConfig
from signstreams.pretrain.views import ViewMaker, decode
from signstreams.streams import HANDS, MIRRORED_IN_HANDS, STREAMS, pretrain_script, pretrained_by

Make = Callable[..., PretrainConfig]
VIDEOS, FRAMES = 3, 12
HAND_SCRIPT = "pretrain_dino_hands.py"


@pytest.fixture
def processed(tmp_path: Path, picture: Callable[[int, int], bytes]) -> Path:
    """Crops of right hands, of left hands, and in ``mirrored/hand_r`` those of ``hand_l`` with mirrored pixels.

    PNGs, whose pixels come back as they went in: a JPEG of mirrored pixels is not the mirrored JPEG.
    """
    for video in range(VIDEOS):
        writers = {
            name: CropWriter(tmp_path / name / f"video_{video}.zip", f"video_{video}")
            for name in ("hand_r", "hand_l", "mirrored/hand_r")
        }
        for writer in writers.values():
            writer.__enter__()
        for frame in range(FRAMES):
            right, left = (decode(picture(number, frame)) for number in (video, video + 1))
            left[:20, :9] = 255  # no bar of a picture is there: mirrored pixels are others
            for name, pixels in (("hand_r", right), ("hand_l", left), ("mirrored/hand_r", left[:, ::-1])):
                writers[name].add(frame, cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes())
        for writer in writers.values():
            writer.__exit__(None, None, None)
    return tmp_path


def folders(processed: Path) -> list[Path]:
    return [processed / "hand_r", processed / "hand_l"]


def test_a_left_hand_gives_the_views_of_the_right_hand_with_its_mirrored_pixels(processed: Path) -> None:
    left, _ = build_index([processed / "hand_l"], MIRRORED_IN_HANDS)
    right, _ = build_index([processed / "mirrored" / "hand_r"], MIRRORED_IN_HANDS)
    plain, _ = build_index([processed / "hand_l"])
    assert all(crop.is_mirrored for crop in left) and not any(crop.is_mirrored for crop in (*right, *plain))
    for is_photometric in (True, False):
        maker = ViewMaker(AugmentationConfig(global_px=24, local_px=16, num_local=2), is_photometric=is_photometric)
        found = [
            ViewDataset(maker, seed=3).__getitems__([Key(7, i, index[i]) for i in range(len(index))])
            for index in (left, right, plain)
        ]
        for batch in found:
            assert not isinstance(batch, Exception)
        one, other, as_is = found
        for mine, theirs, unmirrored in zip(one, other, as_is, strict=True):
            assert (mine is None) == (theirs is None) and (mine is None or torch.equal(mine, theirs))
            assert mine is None or mine.ndim < 4 or not torch.equal(mine, unmirrored)
        assert (one.params is None) == is_photometric
    assert torch.equal(load_whole(left, 16), load_whole(right, 16))
    assert torch.equal(load_whole(left, 40), load_whole(plain, 40).flip(2))
    mixed = [crop for pair in zip(left, plain, strict=True) for crop in pair]
    both = load_whole(mixed, 16)
    assert torch.equal(both[::2], load_whole(left, 16)) and torch.equal(both[1::2], load_whole(plain, 16))


def test_the_mirror_stays_with_the_crops_and_is_in_the_digest_of_the_data(processed: Path, tmp_path: Path) -> None:
    crops = find_crops(folders(processed), probe_crops=8, mirrored=MIRRORED_IN_HANDS)
    for part in (crops.train, crops.probe, copy_to_scratch(crops.train, str(tmp_path / "scratch"))):
        sides = {part.folders[part.video_folder[part.video[i]]].name: part[i].is_mirrored for i in range(len(part))}
        assert sides == {"hand_r": False, "hand_l": True}
    assert {crop.is_mirrored for crop in crops.train[3:40]} == {False, True}
    plain = find_crops(folders(processed), probe_crops=8)
    assert plain.digest != crops.digest
    both = {(crop.video_id, crop.frame) for crop in crops.train if crop.is_mirrored}
    assert both & {(crop.video_id, crop.frame) for crop in crops.train if not crop.is_mirrored}  # two crops of a frame
    assert len(set(crops.train.video)) == 2 * VIDEOS  # which the sampler keeps apart by video


def test_a_run_of_both_hands_is_that_of_right_hands_with_the_same_pixels(make: Make, processed: Path) -> None:
    """Bit for bit, by its first batch as by its last, its held-out crops and its fitted head."""
    shared = make(train_dir=folders(processed), stream=HANDS, output_dir=processed / "dino_hands")
    both = [processed / "hand_r", processed / "mirrored" / "hand_r"]
    right = make(train_dir=both, output_dir=processed / "dino_hand_r")
    files = [pretrain(shared, HANDS), pretrain(right, "hand_r")]
    (mine, theirs) = (checkpoint.load(file) for file in files)
    for name, tensor in mine["model"].items():
        assert torch.equal(tensor, theirs["model"][name]), name
    lines = [read_metrics(file.parent / "metrics.jsonl") for file in files]
    probes = [[line["probe/rankme"] for line in of if "probe/rankme" in line] for of in lines]
    assert probes[0] == probes[1] != []


def test_file_and_card_say_what_is_mirrored_and_older_files_mean_what_they_meant(make: Make, processed: Path) -> None:
    changes = {"epochs": 1, "monitor": {"pictures": True}}
    shared = make(train_dir=folders(processed), stream=HANDS, output_dir=processed / "dino_hands", **changes)
    alone = make(train_dir=[processed / "hand_l"], output_dir=processed / "dino_hand_l", epochs=1)
    found = {name: pretrain(config, name) for name, config in ((HANDS, shared), ("hand_l", alone))}
    metadata = {name: checkpoint.load(path)["metadata"] for name, path in found.items()}
    assert metadata[HANDS]["stream"] == "hands" and metadata[HANDS]["mirrored_streams"] == ["hand_l"]
    assert "mirrored_streams" not in metadata["hand_l"] and metadata["hand_l"]["chirality"] == "one side, never flipped"
    card = (found[HANDS].parent / "README.md").read_text(encoding="utf-8")
    assert "right hands as they are, left hands mirrored; never flipped" in card
    assert "Mirror crops of hand_l left to right before that" in card
    assert "Mirror" not in (found["hand_l"].parent / "README.md").read_text(encoding="utf-8")
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for suffix in (".pt", ".safetensors"):
        backbone = load_dinov2_backbone(f"file::{found[HANDS].with_suffix(suffix)}")
        assert backbone.mirrored_streams == ("hand_l",)
        for stream in (*STREAMS, None):
            expected = backbone.inputs(images.flip(2) if stream == "hand_l" else images, None)
            assert torch.equal(backbone.inputs(images, stream), expected)
    old = load_dinov2_backbone(f"file::{found['hand_l']}")
    plain = (images.float() / 255 - torch.tensor(old.mean)) / torch.tensor(old.std)
    for stream in (*STREAMS, None):
        assert torch.equal(old.inputs(images, stream), plain.permute(0, 3, 1, 2))


def test_pictures_show_what_the_network_sees(
    make: Make, processed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make(train_dir=folders(processed), stream=HANDS, output_dir=processed / "dino_hands", epochs=1)
    backbone = str(pretrain(config, HANDS))
    crops = {"left": processed / "hand_l", "mirrored": processed / "mirrored" / "hand_r", "right": processed / "hand_r"}
    pictures = {}
    for name, folder in crops.items():
        show_backbone(ShowConfig(backbone=backbone, crops=folder, output=tmp_path / name, title="hand"))
        pictures[name] = [cv2.imread(str(tmp_path / name / file)) for file in PICTURE_FILES]
    for mine, theirs, others in zip(pictures["left"], pictures["mirrored"], pictures["right"], strict=True):
        first = np.s_[72:228, 12 : 12 + 2 * 156]  # crop and what is beside it; their label is below
        np.testing.assert_array_equal(mine[first], theirs[first])
        assert (mine[first] != others[first]).any()
    assert "nothing says" not in caplog.text
    (processed / "hand_l").rename(processed / "crops")
    show_backbone(ShowConfig(backbone=backbone, crops=processed / "crops", output=tmp_path / "unknown"))
    assert "nothing says which hand these images show: they stay as they are; mirror left hands first" in caplog.text


def test_limits_on_boxes_are_about_the_tracks_of_each_hand(processed: Path) -> None:
    frames = np.arange(FRAMES)
    ones = np.ones((FRAMES, 4), np.float32)
    for video in range(VIDEOS):
        tracks = {
            stream: StreamTrack(ones, np.full(FRAMES, value, np.float32), np.ones(FRAMES, np.uint8))
            for stream, value in zip(STREAMS, (0.1, 0.2, 0.3), strict=True)
        }
        write_tracks(processed / "tracks" / f"video_{video}.npz", Tracks(tracks, frames / 25))
    index, _ = build_index(folders(processed), MIRRORED_IN_HANDS)
    confidence, _ = track_values(index, None)
    assert [float(value) for value in np.unique(confidence)] == pytest.approx([0.2, 0.3])
    assert [crop.is_mirrored for crop in index] == [bool(value < 0.25) for value in confidence]


def test_both_hands_are_asked_for_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    def config(*words: str, output: str = "o") -> PretrainConfig:
        return parse(PretrainConfig, ["--output-dir", output, *words])

    allowed = pretrained_by(HAND_SCRIPT)
    assert allowed == ("hand_l", "hand_r", HANDS) and pretrained_by("pretrain_dino_face.py") == ("face",)
    assert pretrain_script(HANDS) == HAND_SCRIPT
    both = ["--train-dir", "x/hand_r", "x/hand_l", "y/hand_l"]
    assert config(*both, "--stream", HANDS).named_stream(allowed) == HANDS
    assert config(*both, "--stream", HANDS, output="w/dino_hands").named_stream(allowed) == HANDS
    refusals = {
        "expected one stream per run; --stream hands trains one backbone of both": config(*both),
        "'x/crops': the folder's name does not say which hand it shows, expected hand_l or hand_r": config(
            "--train-dir", "x/hand_r", "x/crops", "--stream", HANDS
        ),
        "found no folder of hand_l, expected hand_l and hand_r for stream 'hands'": config(
            "--train-dir", "x/hand_r", "--stream", HANDS
        ),
        "a flipped hand_l is the other hand": config(*both, "--stream", HANDS, "--set", "augmentation.flip_prob=.5"),
        "is named after another stream than 'hands'; give --output-dir dino_hands": config(
            *both, "--stream", HANDS, output="dino_hand_r"
        ),
        "is named after another stream than 'hand_r'": config("--train-dir", "x/hand_r", output="dino_hands"),
    }
    for expected, refused in refusals.items():
        with pytest.raises(UserError) as caught:
            refused.named_stream(allowed)
        assert expected in caught.value.problems[0]
    with pytest.raises(UserError, match=r"expected face here; use scripts/pretrain_dino_hands\.py"):
        config(*both, "--stream", HANDS).named_stream(("face",))
    with pytest.raises(SystemExit):
        config("--train-dir", "x/hand_r", "--stream", "hand")
    assert "stream" in capsys.readouterr().err
