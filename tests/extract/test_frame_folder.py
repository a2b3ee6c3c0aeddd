"""A folder of images as one video: which folders are, their order and times, and images that are not as the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import validate
from signstreams.corpus.corpus import load_corpus
from signstreams.errors import UserError
from signstreams.extract.batch import extract_videos, find_videos
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.frame_source import claimed_px, frame_places, stray_images
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import UnreadableVideoError, VideoReader
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.formats.video_sources import VideoSource, list_sources
from signstreams.workflow.plan import source_videos

FIRST = 1


def picture(index: int, width: int = 160, height: int = 120) -> np.ndarray:
    """RGB; the number is in the red of all pixels."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[..., 0] = 3 * index
    return image


@pytest.fixture
def frames(tmp_path: Path) -> Callable[..., Path]:
    """``frames("videos/a", 12)`` writes images 1 to 12 named as PHOENIX-2014T names them."""

    def make(folder: str, num_frames: int = 12, name: str = "images{:04d}.png", *, without: tuple = ()) -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True, exist_ok=True)
        for index in range(num_frames):
            if index not in without:
                cv2.imwrite(str(path / name.format(index + FIRST)), picture(index)[..., ::-1])
        return path

    return make


def read(path: Path, fps: float | None = None, **settings: object) -> tuple[VideoReader, list]:
    with VideoReader(path, **settings) as reader:
        return reader, list(reader.frames(fps))


def shown(found: list) -> list[int]:
    return [round(int(frame.image[5, 5, 0]) / 3) for frame in found]


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "bmp", "webp", "PNG"])
def test_images_are_frames_in_the_order_of_their_numbers(frames: Callable, ending: str) -> None:
    folder = frames("a", 12, "f{}." + ending)  # f10 comes before f2 in the alphabet
    reader, found = read(folder)
    assert shown(found) == list(range(12))
    assert [frame.time_s for frame in found] == pytest.approx([k / 25 for k in range(12)])
    assert [frame.source_index for frame in found] == list(range(12))
    assert (reader.width_px, reader.height_px, reader.fps, reader.duration_s) == (160, 120, 25, 12 / 25)
    assert reader.num_frames(None) == 12 and reader.note is None


def test_a_rate_of_its_own_and_a_target_rate(frames: Callable) -> None:
    folder = frames("a", 60)
    _, found = read(folder, 25, frames_fps=30)
    assert len(found) == 50
    assert found[-1].time_s == pytest.approx(49 / 25)


def test_missing_numbers_keep_the_time_of_the_others_and_are_noted(frames: Callable) -> None:
    reader, found = read(frames("a", 12, without=(3, 4, 8)))
    assert shown(found) == [0, 1, 2, 5, 6, 7, 9, 10, 11]
    assert [frame.time_s for frame in found] == pytest.approx([k / 25 for k in shown(found)])
    assert reader.note == "3 of 12 frames are missing by their numbers, the first is 4"


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["a0", "a5", "a10"], [0, 1, 2]),  # thinned: every fifth
        (["a0", "a5", "a10", "a20"], [0, 1, 2, 4]),
        (["0", "33", "67", "100"], [0, 1, 2, 3]),  # milliseconds
        (["x", "y", "z"], [0, 1, 2]),
        (["a1", "b1", "c2"], [0, 1, 2]),
        (["a1_left", "a2_left", "a4_left"], [0, 1, 3]),
    ],
)
def test_numbers_tell_the_time_where_they_are_regular(names: list[str], places: list[int]) -> None:
    assert frame_places(names)[0] == places


def test_what_cannot_be_decoded_is_noted_and_its_time_stays_empty(frames: Callable) -> None:
    folder = frames("a", 12, "{:02d}.jpg")
    (folder / "05.jpg").write_bytes((folder / "05.jpg").read_bytes()[:300])
    (folder / "01.jpg").write_bytes(b"")
    reader, found = read(folder)
    assert [frame.source_index for frame in found] == [1, 2, 3, *range(5, 12)]
    assert found[3].time_s - found[2].time_s == pytest.approx(2 / 25)
    assert reader.note == "cannot be decoded: 01.jpg, 05.jpg"
    reader, sampled = read(folder, 25, spans_s=[(0.16, 0.2)])  # on screen there: the image before
    assert shown(sampled) == [3]


def test_other_sizes_and_formats_are_brought_to_those_of_the_first(frames: Callable) -> None:
    folder = frames("a", 4)
    cv2.imwrite(str(folder / "images0002.png"), picture(1, 320, 240)[..., ::-1])
    cv2.imwrite(str(folder / "images0003.png"), np.full((120, 160), 77, np.uint8))
    deep = np.full((120, 160, 3), 200 * 257, np.uint16)
    cv2.imwrite(str(folder / "images0004.png"), deep)
    reader, found = read(folder)
    assert {frame.image.shape for frame in found} == {(120, 160, 3)}
    assert all(frame.image.dtype == np.uint8 for frame in found)
    assert [frame.image[9, 9].tolist() for frame in found] == [[0, 90, 90], [3, 90, 90], [77] * 3, [200] * 3]
    assert reader.note == "1 images are not of 160x120 px as the first, and were scaled"


def test_transparent_pixels_are_black(frames: Callable) -> None:
    folder = frames("a", 1)
    image = np.full((40, 40, 4), 255, np.uint8)
    image[:20, :, 3] = 0
    for name, dtype in (("images0001.png", np.uint8), ("images0002.png", np.uint16)):
        cv2.imwrite(str(folder / name), image.astype(dtype) * (257 if dtype == np.uint16 else 1))
    for frame in read(folder)[1]:
        assert frame.image[5, 5].tolist() == [0, 0, 0]
        assert frame.image[30, 5].tolist() == [255] * 3


def test_a_folder_without_a_whole_image_says_so(frames: Callable, tmp_path: Path) -> None:
    folder = frames("a", 2)
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UnreadableVideoError, match="none of the folder's 2 images can be decoded"):
        VideoReader(folder)
    (tmp_path / "b").mkdir()
    with pytest.raises(UnreadableVideoError, match="holds no images"):
        VideoReader(tmp_path / "b")


def test_spans_open_only_the_images_they_need(frames: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = frames("a", 50)
    expected = [(f.time_s, f.source_index) for f in read(folder, 12)[1] if 0.4 <= f.time_s < 0.6 or f.time_s >= 1.8]
    opened = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or real(path))
    reader, found = read(folder, 12, spans_s=[(0.4, 0.6), (1.8, 9.0)])
    assert [(frame.time_s, frame.source_index) for frame in found] == expected
    assert len(set(opened)) < 18
    assert reader.end_s == 2.0


def test_folders_of_frames_are_found_beside_files(frames: Callable, make_video: Callable, tmp_path: Path) -> None:
    make_video("film.mp4", 2)
    frames("videos/01April.2010 heute-6694", 2)
    frames("videos/nested/1", 2)
    frames("videos/several/1", 1)
    frames("videos/several/2", 1)
    (tmp_path / "videos" / "thumb.jpg").touch()
    (tmp_path / "videos" / "empty").mkdir()
    frames("videos/.hidden", 1)
    expected = {
        "01April.2010 heute-6694": tmp_path / "videos" / "01April.2010 heute-6694",
        "film": tmp_path / "videos" / "film.mp4",
        "nested": tmp_path / "videos" / "nested",
    }
    listed = list_sources(tmp_path / "videos").sources
    assert {video_id: source.path for video_id, (source,) in listed.items()} == expected
    assert {video_id: source.path for video_id, source in find_videos([tmp_path / "videos"]).items()} == expected
    assert load_corpus(tmp_path).videos == expected


def test_a_folder_of_frames_can_be_named_itself(
    frames: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, nested = frames("x/plain", 2), frames("y/nested/1", 2).parent
    found = find_videos([plain, nested])
    assert {video_id: source.path for video_id, source in found.items()} == {"plain": plain, "nested": nested}
    monkeypatch.chdir(plain)
    assert list(find_videos([Path(".")])) == ["plain"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"found no video in this folder.*or folders of images \(\.png"):
        find_videos([tmp_path / "none"])


def test_a_folder_and_a_file_of_one_name_are_refused(frames: Callable, make_video: Callable, tmp_path: Path) -> None:
    make_video("a.mp4", 1)
    frames("videos/a", 1)
    (problem,) = list_sources(tmp_path / "videos").problems()
    assert problem.endswith("'a' and 'a.mp4' both give the video id 'a'; rename one of them")
    with pytest.raises(UserError, match=r"a' and '.*a\.mp4' both give the video id 'a'; rename one of them"):
        find_videos([tmp_path / "videos"])


def test_digest_and_stamp_follow_every_image_and_nothing_else(frames: Callable) -> None:
    folder = frames("a/1", 3).parent
    source = VideoSource.at(folder)

    def state() -> tuple[str, str | None, int]:
        return source.sha256(), source.frames_stamp(), source.num_bytes()

    before = state()
    (folder / "1" / ".DS_Store").touch()
    (folder / "1" / "notes.txt").write_text("mine")
    assert state() == before
    image = folder / "1" / "images0002.png"
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)  # in place, and as long: the folder's own time of change stays
    os.utime(image, ns=(1, 2**62))
    assert source.sha256() != before[0]
    assert source.frames_stamp() == source.stamp() != before[1]
    image.rename(image.with_name("images0009.png"))
    assert len({before[0], source.sha256()}) == 2
    assert VideoSource.at(image.parent / "images0001.png").frames_stamp() is None
    assert source.images_dir == folder / "1"


def test_a_folder_is_extracted_kept_and_extracted_again_when_an_image_changes(
    frames: Callable, tmp_path: Path, discs: DetectorKind
) -> None:
    folder = frames("videos/a b ñ", 12, without=(5,))
    config = ExtractConfig(videos=[tmp_path / "videos"], root=tmp_path)
    assert list(extract_videos(config, detector=discs).extracted) == ["a b ñ"]
    metadata = read_metadata(CorpusLayout(tmp_path).metadata("a b ñ"))
    assert (metadata.num_frames, metadata.source_fps, metadata.source_name) == (11, 25, "a b ñ")
    assert metadata.source_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert metadata.note == "1 of 12 frames are missing by their numbers, the first is 6"
    assert extract_videos(config, detector=discs).unchanged == ["a b ñ"]
    findings = validate(ContractConfig(root=tmp_path)).findings
    assert {f.rule for f in findings if f.severity == "error"} <= {"streams.empty", "fps.declared"}
    cv2.imwrite(str(folder / "images0003.png"), picture(50))
    assert "metadata.source" in {finding.rule for finding in validate(ContractConfig(root=tmp_path)).findings}
    assert list(extract_videos(config, detector=discs).extracted) == ["a b ñ"]
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert list(extract_videos(config, detector=discs).quarantined) == ["a b ñ"]


@pytest.mark.parametrize(
    ("strays", "ending"),
    [(["thumbnail.jpg"], "jpg"), (["images0005.png"], "jpg"), (["cover1.png", "images0003.bmp"], "png")],
)
def test_images_that_are_no_frames_are_left_out_and_named(frames: Callable, strays: list[str], ending: str) -> None:
    folder = frames("a", 12, "images{:04d}." + ending)
    for name in strays:
        cv2.imwrite(str(folder / name), picture(70))
    reader, found = read(folder)
    assert len(found) == 12 and [frame.source_index for frame in found] == list(range(12))
    assert reader.note == f"left out, as they are not named like the other images: {', '.join(sorted(strays))}"
    assert {"thumbnail.jpg"} & set(strays) <= {path.name for path in VideoSource.at(folder).image_files()}


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "b.jpg", "c.jpg"],
        ["1.jpg", "2.jpg", "3.png"],
        ["a1.jpg", "b1.jpg", "c2.jpg"],
        ["a1.png", "a2.png", "a3.png", "b1.png", "b2.png"],
        ["0.png"],
        ["f9.png", "f10.png", "f100.png"],
    ],
)
def test_no_image_is_left_out_where_it_is_in_doubt(names: list[str]) -> None:
    assert not stray_images(names)


@pytest.mark.parametrize(
    ("ending", "start", "offset", "size"),
    [
        ("jpg", b"\xff\xc0", 5, (16_000).to_bytes(2, "big") * 2),
        ("png", b"IHDR", 4, (2**31 - 1).to_bytes(4, "big") * 2),
        ("bmp", b"BM", 18, (30_000).to_bytes(4, "little") * 2),
    ],
)
def test_an_image_is_not_decoded_whose_header_claims_too_much(
    frames: Callable, ending: str, start: bytes, offset: int, size: bytes
) -> None:
    folder = frames("a", 4, "images{:04d}." + ending)
    path = folder / f"images0002.{ending}"
    data = bytearray(path.read_bytes())
    place = data.index(start) + offset
    data[place : place + len(size)] = size
    path.write_bytes(data)
    reader, found = read(folder)
    assert [frame.source_index for frame in found] == [0, 2, 3]
    assert reader.note == f"cannot be decoded: {path.name}"


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp"])
def test_the_size_in_a_header_is_that_of_the_image(frames: Callable, ending: str) -> None:
    data = (frames("a", 1, "i{}." + ending) / f"i1.{ending}").read_bytes()
    assert claimed_px(data) == (160, 120)
    assert claimed_px(data[:15]) is None and claimed_px(b"") is None


@pytest.mark.parametrize("quality", [50, 101])
def test_the_size_of_webp_without_and_with_losses(quality: int) -> None:
    for channels in (3, 4):
        image = np.random.default_rng(0).integers(0, 255, (120, 160, channels), np.uint8)
        data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        assert claimed_px(data) == (160, 120)


def test_one_number_far_ahead_repeats_nothing_without_end(frames: Callable) -> None:
    folder = frames("a", 12, "{}.png")
    (folder / "12.png").rename(folder / "99999999.png")
    reader, found = read(folder, 25)
    assert len(found) <= 14
    assert reader.note is not None and "no frame for" in reader.note


def test_pipes_and_devices_are_refused_before_they_are_read(
    frames: Callable, make_video: Callable, tmp_path: Path
) -> None:
    make_video("film.mp4", 2)
    videos = tmp_path / "videos"
    os.mkfifo(videos / "pipe.mp4")
    (videos / "zero.mkv").symlink_to("/dev/zero")
    with pytest.raises(UserError) as caught:
        find_videos([videos])
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "'pipe.mp4' is a pipe, expected a file; put the video there, or remove it",
        "'zero.mkv' is a link to a device, expected a file; put the video there, or remove it",
    ]
    assert len(list_sources(videos).problems()) == 2
    with pytest.raises(UserError, match="is a pipe"):
        find_videos([videos / "pipe.mp4"])
    with pytest.raises(UserError, match="a link to a device"):
        source_videos([videos])
    with pytest.raises(UserError, match=r"(?s)'pipe\.mp4' is a pipe.*'zero\.mkv' is a link to a device"):
        load_corpus(tmp_path)
    folder = frames("folder", 3)
    os.mkfifo(folder / "images0002b.png")
    assert len(read(folder)[1]) == 3
