"""From processed files to clips: alignment, masks, splits, and one line for each thing that is wrong."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch

from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.errors import UserError
from signstreams.formats.arrays import StreamTrack, Tracks, read_tracks, write_tracks
from signstreams.formats.crops import list_crops
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.formats.video_metadata import read_metadata, write_metadata
from signstreams.integrate import training
from signstreams.integrate.batches import Sample, collate
from signstreams.integrate.clips import load_clips
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.features import ImageReader, embed_stream, open_features
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.stream_backbones import FrozenBackbone
from signstreams.integrate.text_scores import translation_scores
from signstreams.streams import BoxState

Build = Callable[..., IntegrateConfig]
Open = Callable[[IntegrateConfig], dict[str, ClipDataset]]


def problems_of(config: IntegrateConfig) -> list[str]:
    with pytest.raises(UserError) as error:
        load_clips(config)
    return error.value.problems


def test_a_clip_covers_its_span_and_the_subset_is_drawn_by_the_seed(own_corpus: Path, tiny_config: Build) -> None:
    layout = CorpusLayout(own_corpus)
    first = layout.index("train").read_text(encoding="utf-8").splitlines()[0]
    lines = layout.meta.read_text(encoding="utf-8").splitlines()
    rows = ["id;video;texto;start;end"]
    for line in lines[1:]:
        clip_id, text = line.split(";")
        rows.append(f"{clip_id};{clip_id};{text};0.04;0.2" if clip_id == first else f"{clip_id};{clip_id};{text};0;9")
    layout.meta.write_text("\n".join(rows), encoding="utf-8")
    config = tiny_config(root=own_corpus, data={"frame_stride": 1})
    assert load_clips(config).entries["train"][0].num_frames == 4  # .04 .08 .12 .16
    few = [load_clips(tiny_config(root=own_corpus, seed=seed, data={"subset_size": 3})) for seed in (0, 0, 1)]
    ids = [[entry.clip_id for entry in clips.entries["train"]] for clips in few]
    assert ids[0] == ids[1] and len(ids[0]) == 3 and ids[0] != ids[2]
    assert few[0].vocabulary is not None and len(few[0].vocabulary) == len(load_clips(config).vocabulary or ())


def test_the_digest_follows_the_data(own_corpus: Path, tiny_config: Build) -> None:
    config = tiny_config(root=own_corpus)
    before = load_clips(config).digest
    assert load_clips(config).digest == before
    layout = CorpusLayout(own_corpus)
    path = layout.tracks(load_clips(config).entries["val"][0].clip_id)
    tracks = read_tracks(path)
    write_tracks(path, Tracks(tracks.streams, tracks.times_s + 1e-3))
    assert load_clips(config).digest != before


def test_without_glosses_there_is_no_vocabulary(own_corpus: Path, tiny_config: Build) -> None:
    layout = CorpusLayout(own_corpus)
    layout.gloss.unlink()
    clips = load_clips(tiny_config(root=own_corpus))
    assert clips.vocabulary is None and clips.entries["train"][0].gloss_ids is None


def test_a_blank_cell_of_glosses_is_a_clip_without_glosses(own_corpus: Path, tiny_config: Build) -> None:
    layout = CorpusLayout(own_corpus)
    clip_id = layout.index("train").read_text(encoding="utf-8").splitlines()[2]
    lines = layout.gloss.read_text(encoding="utf-8").splitlines()
    rest = [line for line in lines if not line.startswith(f"{clip_id};")]
    digests = []
    for kept in ([*rest, f"{clip_id}; ;"], rest):
        layout.gloss.write_text("\n".join(kept), encoding="utf-8")
        clips = load_clips(tiny_config(root=own_corpus))
        [entry] = [entry for entry in clips.entries["train"] if entry.clip_id == clip_id]
        assert entry.gloss is None and entry.gloss_ids is None  # CTC leaves it out; () would be "nothing was signed"
        digests.append(clips.digest)
    assert len(rest) == len(lines) - 1 and digests[0] == digests[1]


def test_a_quarantined_video_is_left_out_and_said(
    own_corpus: Path, tiny_config: Build, caplog: pytest.LogCaptureFixture
) -> None:
    layout = CorpusLayout(own_corpus)
    clip_id = layout.index("train").read_text(encoding="utf-8").splitlines()[2]
    metadata = read_metadata(layout.metadata(clip_id))
    write_metadata(layout.metadata(clip_id), metadata.model_copy(update={"status": "quarantined", "reason": "cut"}))
    clips = load_clips(tiny_config(root=own_corpus))
    assert clip_id not in {entry.clip_id for entry in clips.entries["train"]}
    assert "1 clips are left out: their videos are quarantined" in caplog.text


def test_a_gloss_outside_the_vocabulary_is_counted_or_refused(
    own_corpus: Path, tiny_config: Build, caplog: pytest.LogCaptureFixture
) -> None:
    layout = CorpusLayout(own_corpus)
    clip_id = layout.index("test").read_text(encoding="utf-8").strip()
    lines = layout.gloss.read_text(encoding="utf-8").splitlines()
    layout.gloss.write_text("\n".join([*lines[:-1], f"{clip_id};NUNCA CASA;"]), encoding="utf-8")
    [problem] = problems_of(tiny_config(root=own_corpus, data={"unknown_gloss": "refuse"}))
    assert "NUNCA" in problem and clip_id in problem and "unknown_gloss" in problem
    sample = load_clips(tiny_config(root=own_corpus)).entries["test"][0]
    assert sample.gloss == ("NUNCA", "CASA") and sample.gloss_ids is None
    assert "1 glosses of test are in no clip of train: 'NUNCA'" in caplog.text


def test_a_perfect_output_has_a_perfect_score_however_the_tables_write_accents(
    own_corpus: Path, tiny_config: Build
) -> None:
    """Texts, glosses and ids in decomposed form (NFD); the processed files have composed names."""
    layout = CorpusLayout(own_corpus)
    before = load_clips(tiny_config(root=own_corpus))
    paths = [layout.meta, layout.gloss, *map(layout.index, SPLITS)]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        path.write_text(normalize("NFD", text), encoding="utf-8")
        assert normalize("NFD", text) != text, path
    clips = load_clips(tiny_config(root=own_corpus))
    assert clips.digest == before.digest and clips.vocabulary == before.vocabulary
    said = [normalize("NFC", entry.text) for entry in clips.entries["train"]]
    scores = translation_scores(said, [entry.text for entry in clips.entries["train"]])
    assert (round(scores["bleu_4"], 6), round(scores["chrf"], 6), scores["rouge_l"]) == (100, 100, 100)
    assert {name for name in said if "ñ" in name}  # it would have cost words


def test_clips_too_short_for_ctc_are_named(
    own_corpus: Path, tiny_config: Build, caplog: pytest.LogCaptureFixture
) -> None:
    """CTC needs a step of four frames at the stride for each gloss; the loss would leave such a clip out in silence."""
    layout = CorpusLayout(own_corpus)
    first = layout.index("train").read_text(encoding="utf-8").splitlines()[0]
    num_frames = len(read_tracks(layout.tracks(first)).times_s)
    stride = 2
    lines = layout.gloss.read_text(encoding="utf-8").splitlines()
    others = [line for line in lines if not line.startswith(f"{first};")]
    num_steps = -(-num_frames // (4 * stride))  # at least three
    for count, is_named in ((num_steps, False), (num_steps + 1, True)):
        glosses = " ".join(("CASA", "AGUA")[n % 2] for n in range(count))
        layout.gloss.write_text("\n".join([*others, f"{first};{glosses};"]), encoding="utf-8")
        caplog.clear()
        load_clips(tiny_config(root=own_corpus, data={"frame_stride": stride}))
        said = [record.getMessage() for record in caplog.records if "than CTC needs" in record.getMessage()]
        assert any(f"'{first}'" in text for text in said) == is_named, (count, said)


def test_everything_that_is_wrong_is_said_at_once(own_corpus: Path, tiny_config: Build) -> None:
    layout = CorpusLayout(own_corpus)
    ids = layout.index("train").read_text(encoding="utf-8").splitlines()
    np.savez(layout.keypoints(ids[0]), keypoints=np.zeros((4, 133, 3), np.float32))
    layout.pose(ids[1]).unlink()
    layout.crops("face", ids[2]).write_bytes(b"no zip")
    layout.metadata(ids[3]).unlink()
    tracks = read_tracks(layout.tracks(ids[4]))
    short = {s: StreamTrack(t.box[1:], t.confidence[1:], t.state[1:]) for s, t in tracks.streams.items()}
    write_tracks(layout.tracks(ids[4]), Tracks(short, tracks.times_s[1:]))
    text = "\n".join(problems_of(tiny_config(root=own_corpus)))
    assert "(4, 133, 3), expected (T, 543, 3)" in text
    assert f"pose/{ids[1]}.npz: no such file" in text
    assert f"face/{ids[2]}.zip: is not a readable ZIP" in text
    assert f"metadata/{ids[3]}.json: no such file, expected a processed video" in text
    assert "frames, but tracks has" in text
    assert all("; " in problem for problem in text.splitlines())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"max_frames": 2}, "expected at most 2"), ({"frame_stride": 1, "max_frames": 5}, "raise data.max_frames")],
)
def test_a_clip_that_is_too_long_is_named(
    own_corpus: Path, tiny_config: Build, changes: dict[str, int], message: str
) -> None:
    found = problems_of(tiny_config(root=own_corpus, data=changes))
    assert len(found) == 8 and all(message in problem for problem in found)


def test_a_long_clip_is_read_with_the_smallest_stride_that_fits(tiny_config: Build) -> None:
    plain = load_clips(tiny_config(data={"frame_stride": 1})).entries["train"]
    longest = max(entry.num_frames for entry in plain)
    limit = longest - 1
    strided = load_clips(tiny_config(data={"frame_stride": 1, "max_frames": limit, "long_clips": "stride"})).entries[
        "train"
    ]
    for before, after in zip(plain, strided, strict=True):
        step = after.frames.step
        assert after.num_frames <= limit and step == (1 if before.num_frames <= limit else 2)
        assert (after.frames.start, after.frames[-1]) == (before.frames.start, before.frames[::step][-1])  # not cut
    assert {entry.frames.step for entry in strided} == {1, 2}  # some fit as they are


@pytest.mark.parametrize("how", ["sample", "centre"])
def test_a_long_clip_is_cut_to_its_middle_except_where_training_draws_from_it(
    how: str, own_corpus: Path, tiny_config: Build, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load_clips(tiny_config(root=own_corpus))
    shortest = min(entry.num_frames for entries in plain.entries.values() for entry in entries)
    limit = shortest - 1  # odd numbers of frames are left over, and even ones
    cut = load_clips(tiny_config(root=own_corpus, data={"max_frames": limit, "long_clips": how}))
    for split, entries in cut.entries.items():
        for before, after in zip(plain.entries[split], entries, strict=True):
            if how == "sample" and split == "train":
                assert after.frames == before.frames
                continue
            assert after.num_frames == limit and after.frames.step == before.frames.step
            left = before.frames.index(after.frames.start)
            assert 0 <= before.num_frames - limit - 2 * left <= 1
    num_cut = 2 if how == "sample" else 8
    assert f"{num_cut} clips are longer than data.max_frames ({limit})" in caplog.text


def test_a_training_draws_frames_of_a_long_clip_and_its_evaluations_do_not(
    own_corpus: Path, tiny_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)
    config = tiny_config(
        root=own_corpus,
        output_dir=tmp_path / "out",
        model=keys,
        data={"max_frames": 4, "long_clips": "sample"},
        augmentation={"frame_sampling": "random", "time_scale": [0.5, 1.5]},
        train={"epochs": 2},
    )
    lengths: list[int] = []

    def watched(samples: list[Sample], **more: object) -> object:
        lengths.extend(clip.num_frames for clip in samples)
        return collate(samples, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "collate", watched)
    run(config)
    assert len(lengths) == 12 and max(lengths) == 4
    tree = {"checkpoint": config.output_dir / "best.pt", "splits": ["train"], "blank_video": False}
    first, second = (
        score(EvaluateSltConfig.model_validate({**tree, "output_dir": tmp_path / name})) for name in ("1", "2")
    )
    assert first["losses"] == second["losses"] and first["num_clips"] == 6
    rows = (tmp_path / "1" / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    spans = [tuple(map(int, row.split(",")[-3:-1])) for row in rows]
    assert all(last - start == 3 * config.data.frame_stride for start, last in spans)  # cut: not drawn from


def test_clips_of_absent_videos_are_left_out_where_that_is_allowed(own_corpus: Path, tiny_config: Build) -> None:
    layout = CorpusLayout(own_corpus)
    for path in layout.processed.glob("*/train ñ5.*"):
        path.unlink()
    assert any("train ñ5" in problem for problem in problems_of(tiny_config(root=own_corpus)))
    clips = load_clips(tiny_config(root=own_corpus, data={"allow_absent_videos": True}))
    assert [entry.clip_id for entry in clips.entries["train"]] == [f"train ñ{number}" for number in range(5)]


def test_a_clip_without_text_is_left_out_and_one_without_frames_is_named(
    own_corpus: Path, tiny_config: Build, caplog: pytest.LogCaptureFixture
) -> None:
    layout = CorpusLayout(own_corpus)
    lines = layout.meta.read_text(encoding="utf-8").splitlines()
    rows = ["id;video;texto;start;end"]
    for number, line in enumerate(lines[1:]):
        clip_id, text = line.split(";")
        rows.append(f"{clip_id};{clip_id};{'' if number == 0 else text};{50 if number == 1 else 0};60")
    layout.meta.write_text("\n".join(rows), encoding="utf-8")
    (problem,) = problems_of(tiny_config(root=own_corpus))
    assert "covers none of the video's" in problem
    assert "1 clips are left out: they have no text" in caplog.text
    rows[2] = rows[2].replace(";50;", ";0;")
    layout.meta.write_text("\n".join(rows), encoding="utf-8")
    clips = load_clips(tiny_config(root=own_corpus))
    assert rows[1].split(";")[0] not in {entry.clip_id for entries in clips.entries.values() for entry in entries}


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_empty_split_is_refused(own_corpus: Path, tiny_config: Build, split: str) -> None:
    CorpusLayout(own_corpus).index(split).write_text("")
    [problem] = problems_of(tiny_config(root=own_corpus))
    assert f"index/{split}.csv: no clip" in problem


def test_a_corpus_that_is_not_there_is_refused(tmp_path: Path, tiny_config: Build) -> None:
    assert "no such folder" in problems_of(tiny_config(root=tmp_path / "absent"))[0]
    assert "meta.csv" in problems_of(tiny_config(root=tmp_path))[0]


def test_frozen_features_are_the_backbones_and_zero_where_missing(
    tiny_config: Build, open_splits: Open, backbone_specs: dict[str, str]
) -> None:
    sample = open_splits(tiny_config())["val"][1]
    thawed = open_splits(tiny_config(model={"freeze_hand_left_backbone": False}))["val"][1]
    assert not sample.crops and "hand_l" not in thawed.features
    backbone = load_dinov2_backbone(backbone_specs["hand_left_backbone"])
    reader = ImageReader({"hand_l": 16})
    for frame, crop in enumerate(thawed.crops["hand_l"]):
        if crop is None:
            assert not sample.features["hand_l"][frame].any()
        else:
            with torch.no_grad():
                alone = backbone(backbone.inputs(torch.from_numpy(reader("hand_l", [crop])), "hand_l"))[0]
            np.testing.assert_allclose(sample.features["hand_l"][frame], alone.numpy(), atol=5e-3)


def test_a_crop_of_a_missing_frame_is_never_read(own_corpus: Path, tiny_config: Build, open_splits: Open) -> None:
    layout = CorpusLayout(own_corpus)
    clip_id = layout.index("val").read_text(encoding="utf-8").strip()
    tracks = read_tracks(layout.tracks(clip_id))
    hand = tracks.streams["hand_l"]
    state = hand.state.copy()
    state[:] = BoxState.MISSING  # the archive still holds crops
    streams = {**tracks.streams, "hand_l": StreamTrack(hand.box, hand.confidence, state)}
    write_tracks(layout.tracks(clip_id), Tracks(streams, tracks.times_s))
    config = tiny_config(root=own_corpus, model={"freeze_hand_left_backbone": False})
    sample = open_splits(config)["val"][0]
    assert not sample.present["hand_l"].any() and not any(sample.crops["hand_l"])

    def refuse(stream: str, crops: list[object]) -> np.ndarray:
        assert not crops
        return np.zeros((0, 16, 16, 3), np.uint8)

    batch = collate([replace(sample, tokens=[1])], trained=["hand_l"], read_images=refuse)
    assert batch.images["hand_l"].shape == (0, 16, 16, 3)


def test_an_unreadable_crop_is_named(own_corpus: Path, tiny_config: Build, open_splits: Open) -> None:
    layout = CorpusLayout(own_corpus)
    clip_id = layout.index("val").read_text(encoding="utf-8").strip()
    path = layout.crops("hand_l", clip_id)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.writestr(name, b"no jpeg")
    with pytest.raises(UserError, match=r"frame \d+: is not a readable JPEG"):
        open_splits(tiny_config(root=own_corpus))


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES], ids=errno.errorcode.get)
def test_a_crop_that_the_machine_does_not_give_is_no_damaged_one(
    own_corpus: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    layout = CorpusLayout(own_corpus)
    video_id = layout.index("val").read_text(encoding="utf-8").strip()
    crops = list_crops(layout.crops("hand_r", video_id))

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(OSError, match=video_id) as caught:
        ImageReader({"hand_r": 16})("hand_r", crops)
    assert caught.value.errno == code and not isinstance(caught.value, UserError)


def test_features_that_are_not_finite_name_the_stream(tiny_config: Build, backbone_specs: dict[str, str]) -> None:
    backbone = load_dinov2_backbone(backbone_specs["hand_left_backbone"])
    with torch.no_grad():
        backbone.model.norm.weight.fill_(float("nan"))
    config = tiny_config()
    frozen = FrozenBackbone("hand_l", backbone, "0", 16)
    with pytest.raises(UserError, match="backbone of hand_l: features are not finite"):
        embed_stream(
            CorpusLayout(config.root),
            load_clips(config).videos,
            frozen,
            open_features(config.features, frozen),
            torch.device("cpu"),
        )
