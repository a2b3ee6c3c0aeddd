"""Where labels come from, and what is said of a set that has none."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.formats.arrays import write_keypoints
from signstreams.formats.crops import CropWriter
from signstreams.formats.landmarks import NUM_KEYPOINTS
from signstreams.formats.layout import CorpusLayout
from signstreams.judge.labelled_sets import LabelledSet, compiled, read_set
from signstreams.judge.settings import EvaluateBackboneConfig

from .conftest import jpeg


def read(data: Path, **words: Any) -> LabelledSet:
    return read_set(EvaluateBackboneConfig(data=data, output=data / "out", **words))


def by_name(found: LabelledSet) -> dict[str, str]:
    return {name: found.classes[label] for name, label in zip(found.names, found.labels, strict=True)}


def test_folders_and_a_zip_of_them_are_the_same_set(photos: Path) -> None:
    with zipfile.ZipFile(photos.with_suffix(".zip"), "w") as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.write(path, path.relative_to(photos).as_posix())
    found, packed = read(photos), read(photos.with_suffix(".zip"))
    assert by_name(found) == by_name(packed)
    assert found.classes == ["c0", "c1", "c2", "c3"]
    assert by_name(found)["c2/p1_c2_0.jpg"] == "c2"
    assert (len(found.names), found.signers, found.has_clips) == (24, None, False)


def test_a_pattern_names_class_and_signer(photos: Path) -> None:
    found = read(photos, labels="<signer>_<class>_<n>")
    assert by_name(found) == by_name(read(photos))
    assert found.signers is not None
    assert {name.split("/")[1][:2]: signer for name, signer in zip(found.names, found.signers, strict=True)} == {
        "p0": "p0",
        "p1": "p1",
        "p2": "p2",
    }
    assert read(photos, labels="<class>/*").signers is None


@pytest.mark.parametrize(
    ("pattern", "name", "label", "signer"),
    [
        ("<class>_<signer>_<n>", "able_to_3_12", "able_to", "3"),
        ("<signer>_<class>_*", "hand1_0_bot_seg_1_cropped", "0", "hand1"),
        ("<class>_example<signer>", "do-effort_example2", "do-effort", "2"),
        ("<signer>/<class>", "ana/house", "house", "ana"),
        ("<class>.<signer>", "a.b", "a", "b"),
    ],
)
def test_a_pattern_means_what_it_looks_like(pattern: str, name: str, label: str, signer: str) -> None:
    match = compiled(pattern).fullmatch(name)
    assert match is not None
    assert (match["label"], match["signer"]) == (label, signer)
    assert compiled("<class>.<signer>").fullmatch("aXb") is None


def test_a_table_labels_its_files_alone(photos: Path, tmp_path: Path) -> None:
    rows = [f"c{c}/p{p}_c{c}_{n}.jpg;{'xy'[c % 2]};anna{p}" for c in range(4) for p in range(3) for n in range(2)]
    path = tmp_path / "labels.csv"
    path.write_text("file;label;signer\n" + "\n".join(rows[:20]) + "\n")
    found = read(photos, labels=str(path))
    assert len(found.names) == 20
    assert by_name(found)["c3/p0_c3_1.jpg"] == "y"
    assert found.signers is not None and sorted(set(found.signers)) == ["anna0", "anna1", "anna2"]


def test_all_faults_of_a_table_are_said_at_once(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,label,signer\nc0/p0_c0_0,a,x\nc0/p0_c0_0.jpg,a,x\nabsent.jpg,a,x\nc0/p0_c0_1,,x\nc1/p0_c1_0,a,\n"
    )
    with pytest.raises(UserError) as caught:
        read(photos, labels=str(path))
    assert [problem.rpartition(" row ")[2] for problem in caught.value.problems] == [
        "3: 'c0/p0_c0_0.jpg' is labelled twice; remove one of the rows",
        "4: no file 'absent.jpg' in the set; correct the name",
        "5: 'c0/p0_c0_1' has no label; fill it in or remove the row",
        "6: 'c1/p0_c1_0' has no signer; fill it in, or remove the column",
    ]
    path.write_text("file,signer\nc0/p0_c0_0,x\n")
    with pytest.raises(UserError, match="lacks the columns label"):
        read(photos, labels=str(path))


def test_clips_of_a_corpus_have_their_crops_in_order(add_video: Callable[..., CorpusLayout]) -> None:
    for word, angle in (("house", 0.0), ("dog", 1.0)):
        for person in (1, 2):
            layout = add_video(f"{word}_{person}", angle, angle + 1, left=word == "dog")
    found = read(layout.root, labels="<class>_<signer>")
    assert by_name(found) == {"dog_1": "dog", "dog_2": "dog", "house_1": "house", "house_2": "house"}
    assert (found.signers, found.has_clips) == (["1", "2", "1", "2"], True)
    left, right = found.parts
    assert (left.stream, right.stream) == ("hand_l", "hand_r")
    assert left.owner.tolist() == [0] * 9 + [1] * 9  # a house is signed by one hand
    assert right.owner.tolist() == np.repeat(np.arange(4), 9).tolist()
    assert [(crop.video_id, crop.frame) for crop in right.crops[9:12]] == [("dog_2", 0), ("dog_2", 1), ("dog_2", 2)]
    assert right.points is not None
    assert right.points.shape == (36, 21, 2)
    np.testing.assert_allclose(right.points[0, -1, 0], 0.6 * 200, rtol=1e-6)  # in px of the frame


def test_words_and_spans_of_meta_csv(add_video: Callable[..., CorpusLayout]) -> None:
    layout = add_video("v1", 0, 1)
    add_video("v2", 0, 1)
    rows = ["a,v1,0,0.12,house,ana", "b,v1,0.12,0.36,dog,ana", "c,v2,0,0.16,house,beto", "d,v2,0.16,0.36,dog,beto"]
    layout.meta.write_text("id,video,start,end,text,signer\n" + "\n".join(rows) + "\n")
    found = read(layout.root, streams=["hand_r"])
    assert by_name(found) == {"a": "house", "b": "dog", "c": "house", "d": "dog"}
    (part,) = found.parts
    assert np.bincount(part.owner).tolist() == [3, 6, 4, 5]
    layout.meta.write_text("id,video,start,end,text,signer\n" + "\n".join([*rows[:3], "d,v2,0.16,0.36,dog,"]) + "\n")
    with pytest.raises(UserError, match="1 of 4 clips name no signer"):
        read(layout.root)
    sentences = [f"{row.split(',')[0]},v1,0,0.1,sentence {i},ana" for i, row in enumerate(rows)]
    layout.meta.write_text("id,video,start,end,text,signer\n" + "\n".join(sentences) + "\n")
    with pytest.raises(UserError, match="no corpus of isolated signs"):
        read(layout.root)


def test_what_is_missing_is_named(photos: Path, add_video: Callable[..., CorpusLayout], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder or ZIP"):
        read(tmp_path / "absent")
    with pytest.raises(UserError, match="does not fit 24 of 24 names"):
        read(photos, labels="<class>-<signer>")
    with pytest.raises(UserError, match="expected an extracted corpus"):
        read(photos, labels="handshapes")
    with pytest.raises(UserError, match="streams has no effect"):
        read(photos, streams=["hand_r"])
    with pytest.raises(UserError, match="are not in the folder of a class"):
        read(photos / "c0")
    with pytest.raises(UserError, match="1 classes"):
        read(photos / "c0", labels="*_<class>_<n>")
    layout = add_video("a_1", 0, 1)
    with pytest.raises(UserError, match="is a corpus without a folder per class"):
        read(layout.root, labels="folders")
    with pytest.raises(UserError, match=r"meta\.csv: no such file"):
        read(layout.root)
    with pytest.raises(UserError, match="expected one hand for labels 'handshapes'"):
        read(layout.root, labels="handshapes")
    with pytest.raises(ValueError, match="pattern without <class>"):
        EvaluateBackboneConfig(data=photos, output=photos, labels="<signer>_<n>")
    with pytest.raises(ValueError, match="given twice"):
        EvaluateBackboneConfig(data=photos, output=photos, backbone=["a", "a"])
    with pytest.raises(UserError, match="found <class>, <who>, expected <class> once"):
        read(photos, labels="<class>_<who>")


@pytest.fixture
def demo(add_video: Callable[..., CorpusLayout]) -> CorpusLayout:
    """Four videos of two signers with a handshape for every three frames; the last one is not of the train split."""
    for video in range(4):
        layout = add_video(f"v{video}", 0.5 * video, 1)
        path = layout.ground_truth(f"v{video}")
        path.parent.mkdir(exist_ok=True)
        handshape = np.arange(9, dtype=np.int16) // 3
        handshape[0] = -1  # in between two handshapes
        np.savez(
            path,
            hand_r_handshape=handshape,
            handshape_names=np.array(["fist", "flat", "index"]),
            clip_ids=np.array([f"v{video}_0", f"v{video}_1"]),
            signer=np.array("ana" if video < 2 else "beto"),
        )
    layout.index("train").parent.mkdir()
    layout.index("train").write_text("v0_0\nv0_1\nv1_0\nv2_1\n")
    return layout


def test_handshapes_of_the_demo_corpus_keep_its_split(demo: CorpusLayout) -> None:
    found = read(demo.root, labels="handshapes", streams=["hand_r"])
    (part,) = found.parts
    assert len(part.crops) == 4 * 8
    assert [found.classes[label] for label in found.labels[:8]] == ["fist"] * 2 + ["flat"] * 3 + ["index"] * 3
    assert found.is_bank is not None and found.videos is not None
    assert {video for video, known in zip(found.videos, found.is_bank, strict=True) if not known} == {"v3"}
    assert found.signers == ["ana"] * 16 + ["beto"] * 16
    assert part.points is not None and part.points.shape == (32, 21, 2)
    demo.keypoints("v1").unlink()  # a stream of another tool has none
    assert read(demo.root, labels="handshapes", streams=["hand_r"]).parts[0].points is None


def test_mouths_of_the_demo_corpus_are_those_of_its_face(demo: CorpusLayout) -> None:
    for video in range(4):
        with np.load(demo.ground_truth(f"v{video}")) as truth:
            kept = dict(truth)
        mouth = np.array([-1, 0, 0, 0, -1, 1, 1, 1, -1], np.int16)
        np.savez(demo.ground_truth(f"v{video}"), **kept, face_mouth=mouth, mouth_names=np.array(["a", "o"]))
        with CropWriter(demo.crops("face", f"v{video}"), f"v{video}") as writer:
            for frame in range(9):
                writer.add(frame, jpeg(frame / 9, 0))
    found = read(demo.root, labels="mouths")
    (part,) = found.parts
    assert (part.stream, part.points, found.labels_from) == ("face", None, "mouths")
    assert [found.classes[label] for label in found.labels[:6]] == ["a"] * 3 + ["o"] * 3 and len(part.crops) == 4 * 6
    with pytest.raises(UserError, match="hand_r, expected the face for labels 'mouths'; give --streams face"):
        read(demo.root, labels="mouths", streams=["hand_r"])


def test_files_that_are_absent_or_cut_short_are_named(add_video: Callable[..., CorpusLayout]) -> None:
    for name in ("a_1", "a_2", "b_1", "b_2"):
        layout = add_video(name, 0, 1)
    write_keypoints(layout.keypoints("a_1"), np.zeros((8, NUM_KEYPOINTS, 3), np.float32))
    with pytest.raises(UserError, match=r"a_1\.npz: has 8 frames, expected 9; extract the video again"):
        read(layout.root, labels="<class>_<signer>")
    layout.keypoints("a_1").unlink()
    layout.crops("hand_l", "b_2").unlink()
    with pytest.raises(UserError) as caught:
        read(layout.root, labels="<class>_<signer>")
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        str(layout.keypoints("a_1")),
        str(layout.crops("hand_l", "b_2")),
    ]


def test_what_the_demo_corpus_lacks_is_named(demo: CorpusLayout) -> None:
    demo.index("train").write_text("v0\nv1\nv2\nv3\n")
    with pytest.raises(UserError, match="4 videos of the train split and 0 others"):
        read(demo.root, labels="handshapes", streams=["hand_r"])
    demo.index("train").unlink()
    with pytest.raises(UserError, match=r"train\.csv: .*run signstreams split"):
        read(demo.root, labels="handshapes", streams=["hand_r"])
    demo.ground_truth("v2").write_bytes(b"")
    with pytest.raises(UserError, match=r"v2\.npz: no ground truth"):
        read(demo.root, labels="handshapes", streams=["hand_r"])
