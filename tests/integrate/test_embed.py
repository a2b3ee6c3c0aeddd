"""Features and points are made once per video: what changed is made again, nothing else, and nothing stale is read."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from signstreams.backbones.archs import ARCHS
from signstreams.backbones.vit import VisionTransformer
from signstreams.errors import UserError
from signstreams.formats.crops import list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate import features as embedding_module
from signstreams.integrate.array_store import JOURNAL
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.embed import embed
from signstreams.integrate.settings import EmbedConfig, IntegrateConfig
from signstreams.integrate.stream_backbones import FrozenBackbone, load_backbones
from signstreams.streams import STREAMS

Build = Callable[..., IntegrateConfig]
Make = Callable[..., Path]
Open = Callable[[IntegrateConfig], dict[str, ClipDataset]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of crops of each call of a backbone."""
    calls: list[int] = []
    encode = FrozenBackbone.encode

    def counting(self: FrozenBackbone, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(FrozenBackbone, "encode", counting)
    return calls


def settings(corpus: Path, features: Path, backbone: Path, **changes: object) -> EmbedConfig:
    tree = {"root": corpus, "features_dir": features, "stream": "hand_r", "backbone": f"file::{backbone}"}
    return EmbedConfig.model_validate(tree | changes)


def folders(features: Path) -> list[str]:
    return sorted(path.name for path in (features / "hand_r").iterdir())


def test_a_second_run_and_a_training_encode_nothing(
    own_corpus: Path, tmp_path: Path, make_backbone: Make, tiny_config: Build, open_splits: Open, counted: list[int]
) -> None:
    features, backbone = tmp_path / "f", make_backbone(tmp_path / "b.pt")
    content = embed(settings(own_corpus, features, backbone))
    assert sum(counted) > 0 and content["num_frames"] > sum(counted)  # missing frames are not encoded
    assert json.loads((features / "hand_r.json").read_text()) == content
    counted.clear()
    assert embed(settings(own_corpus, features, backbone)) == content
    model = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": f"file::{backbone}"}
    splits = open_splits(tiny_config(root=own_corpus, features_dir=features, model=model))
    assert not counted
    clip = splits["val"][0]
    stored = np.load(features / content["folder"] / f"{splits['val'].entries[0].video.video_id}.npy")
    there = clip.present["hand_r"]
    np.testing.assert_array_equal(clip.features["hand_r"][there], stored[:: len(stored) // len(there)][there])
    assert np.isnan(stored).any() and not np.isnan(clip.features["hand_r"]).any()


def test_a_changed_backbone_has_a_folder_of_its_own_and_prune_removes_the_old_one(
    own_corpus: Path, tmp_path: Path, make_backbone: Make, counted: list[int]
) -> None:
    features, backbone = tmp_path / "f", make_backbone(tmp_path / "b.pt")
    first = embed(settings(own_corpus, features, backbone))
    make_backbone(backbone, seed=1)
    counted.clear()
    second = embed(settings(own_corpus, features, backbone))
    assert sum(counted) > 0 and len(folders(features)) == 2
    assert first["backbone"] != second["backbone"]
    kept = next(iter(second["videos"]))
    assert first["videos"][kept]["sha256"] != second["videos"][kept]["sha256"]
    (features / "hand_r" / "notes").mkdir()  # not ours
    embed(settings(own_corpus, features, backbone, prune=True))
    assert folders(features) == sorted([Path(second["folder"]).name, "notes"])


def test_a_resized_position_table_makes_other_features(tmp_path: Path, tiny_config: Build) -> None:
    weights = VisionTransformer(dataclasses.replace(ARCHS["dinov2_vits14"], table_px=224)).state_dict()
    torch.save(weights, tmp_path / "b.pt")
    digests = set()
    for spec in (f"file::{tmp_path}/b.pt", f"file::{tmp_path}/b.pt:dinov2_vits14"):  # the latter's table is for 518 px
        model = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": spec}
        digests.add(load_backbones(tiny_config(model=model, data={"crop_px": 56})).frozen["hand_r"].digest)
    assert len(digests) == 2


def test_a_video_whose_crops_changed_is_encoded_alone(
    own_corpus: Path, tmp_path: Path, make_backbone: Make, counted: list[int]
) -> None:
    features, backbone = tmp_path / "f", make_backbone(tmp_path / "b.pt")
    before = embed(settings(own_corpus, features, backbone))["videos"]
    layout = CorpusLayout(own_corpus)
    ids = sorted(before)
    layout.crops("hand_r", ids[0]).write_bytes(layout.crops("hand_r", ids[1]).read_bytes())
    source = np.load(layout.tracks(ids[1]))
    np.savez(layout.tracks(ids[0]), **{name: source[name] for name in source.files})
    counted.clear()
    after = embed(settings(own_corpus, features, backbone))["videos"]
    assert [video for video in ids if before[video] != after[video]] == ids[:1]
    assert sum(counted) == len(list_crops(layout.crops("hand_r", ids[0])))


def test_what_a_killed_run_left_is_kept_and_torn_files_are_made_again(
    own_corpus: Path, tmp_path: Path, make_backbone: Make, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, backbone = tmp_path / "f", make_backbone(tmp_path / "b.pt")
    monkeypatch.setattr(embedding_module, "BATCH", 4)
    whole = embed(settings(own_corpus, features, backbone))
    folder = features / whole["folder"]
    ids = sorted(whole["videos"])
    torn, unnamed = folder / f"{ids[0]}.npy", ids[1]
    torn.write_bytes(torn.read_bytes()[:-7])
    journal = folder / JOURNAL
    lines = [line for line in journal.read_text().splitlines() if json.loads(line)["video"] != unnamed]
    journal.write_text("\n".join(lines) + '\n{"video": "cut sho')
    total = sum(counted)
    counted.clear()
    again = embed(settings(own_corpus, features, backbone))
    assert 0 < sum(counted) < total / 2
    assert again == whole


def test_every_block_is_kept_where_their_weights_are_learned(
    own_corpus: Path, tmp_path: Path, make_backbone: Make, tiny_config: Build, open_splits: Open
) -> None:
    features, backbone = tmp_path / "f", make_backbone(tmp_path / "b.pt", depth=3)
    last = embed(settings(own_corpus, features, backbone))
    every = embed(settings(own_corpus, features, backbone, backbone_layers="weighted"))
    video = next(iter(every["videos"]))
    one, all_of_them = (np.load(features / found["folder"] / f"{video}.npy") for found in (last, every))
    assert all_of_them.shape == (len(one), 3, one.shape[1])
    model = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": f"file::{backbone}"}
    config = tiny_config(root=own_corpus, features_dir=features, model=model | {"backbone_layers": "weighted"})
    assert open_splits(config)["val"][0].features["hand_r"].shape[1:] == (3, one.shape[1])


def test_the_mean_of_the_patches_stands_beside_the_class_token(
    own_corpus: Path, tmp_path: Path, make_backbone: Make, tiny_config: Build, open_splits: Open
) -> None:
    features, backbone = tmp_path / "f", make_backbone(tmp_path / "b.pt", depth=3)
    last = embed(settings(own_corpus, features, backbone))
    both = embed(settings(own_corpus, features, backbone, backbone_layers="last_and_patches"))
    video = next(iter(both["videos"]))
    one, two = (np.load(features / found["folder"] / f"{video}.npy") for found in (last, both))
    assert two.shape == (len(one), 2 * one.shape[1])
    np.testing.assert_array_equal(two[:, : one.shape[1]], one)
    model = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": f"file::{backbone}"}
    config = tiny_config(root=own_corpus, features_dir=features, model=model | {"backbone_layers": "last_and_patches"})
    assert open_splits(config)["val"][0].features["hand_r"].shape[1:] == two.shape[1:]
    assert load_backbones(config).dims == {"hand_r": two.shape[1]}


def test_points_are_gathered_once_and_a_change_is_seen(own_corpus: Path, tmp_path: Path) -> None:
    config = EmbedConfig(root=own_corpus, features_dir=tmp_path / "f", stream="points")
    before = embed(config)
    assert sorted(before["arrays"]) == ["nodes", "pose", "times"]
    path = CorpusLayout(own_corpus).keypoints(next(iter(before["videos"])))
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files}
    arrays["keypoints"][:, 0, 0] += 0.01  # the nose
    np.savez(path, **arrays)
    after = embed(config)
    changed = [video for video in before["videos"] if before["videos"][video] != after["videos"][video]]
    assert changed == [path.stem]


def test_points_of_another_layout_are_named(own_corpus: Path, tmp_path: Path) -> None:
    layout = CorpusLayout(own_corpus)
    paths = sorted((layout.processed / "keypoints").glob("*.npz"))[:2]
    for path in paths:
        np.savez(path, keypoints=np.zeros((10, 133, 3), np.float32))
    with pytest.raises(UserError) as caught:
        embed(EmbedConfig(root=own_corpus, features_dir=tmp_path / "f", stream="points"))
    for path in paths:
        assert str(path) in str(caught.value)
    assert "543" in str(caught.value)


def test_a_corpus_without_videos_and_settings_without_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no extracted video"):
        embed(EmbedConfig(root=tmp_path, features_dir=tmp_path / "f", stream="points"))
    with pytest.raises(ValueError, match="points need no backbone"):
        EmbedConfig(root=tmp_path, features_dir=tmp_path, stream="points", backbone="timm::vit_tiny")
    for place in ({"stream": "face", "backbone": "file::b.pt"}, {"stream": "points"}):
        with pytest.raises(ValueError, match="download has no effect"):
            EmbedConfig.model_validate({"root": tmp_path, "features_dir": tmp_path, "download": True, **place})
    with pytest.raises(ValueError, match="stream face needs a backbone"):
        EmbedConfig(root=tmp_path, features_dir=tmp_path, stream="face")


def test_a_folder_of_metadata_that_may_not_be_listed_is_no_empty_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`exit_on_user_error` names it in one line; to extract again would be the wrong advice."""

    def refuse(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("signstreams.integrate.clips.os.listdir", refuse)
    with pytest.raises(PermissionError, match="processed/metadata"):
        embed(EmbedConfig(root=tmp_path, features_dir=tmp_path / "f", stream="points"))


@pytest.mark.parametrize("stream", STREAMS)
def test_features_that_are_not_finite_end_it(
    own_corpus: Path, tmp_path: Path, make_backbone: Make, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrozenBackbone, "encode", lambda self, images: torch.full((len(images), 192), torch.inf))
    config = settings(own_corpus, tmp_path / "f", make_backbone(tmp_path / "b.pt"), stream=stream)
    with pytest.raises(UserError, match=rf"backbone of {stream}: features are not finite"):
        embed(config)
