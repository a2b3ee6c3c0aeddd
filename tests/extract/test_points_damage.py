"""Damaged files of points: their video is quarantined in one line, whatever they claim, and the others go on."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from pose_format.pose_header import PoseHeaderComponent
from pose_format.utils.cocowholebody133_header import cocowholebody_components

from signstreams.extract.batch import extract_videos
from signstreams.extract.detectors import VideoContext
from signstreams.extract.points_file import MAX_NPZ_BYTES, PointsError, read_points
from signstreams.extract.precomputed import PrecomputedDetector
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame, UnreadableVideoError
from signstreams.formats.layout import CorpusLayout

from .made_up_points import HEIGHT, WIDTH, mediapipe, person, write_pose

T = 12
PX = person(T)
SEED, CASES = 16, 3000


def array_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An npz whose checksums fit its members, damaged or not."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def use(path: Path) -> None:
    """Read all rows of a file, as the extraction of a video of 12 frames would."""
    config = ExtractConfig(videos=[path], root=path.parent, detector="precomputed", precomputed={"folder": path.parent})
    context = VideoContext(path, "video", WIDTH, HEIGHT, 30.0, None, T / 30)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with PrecomputedDetector(config, context) as detector:
        for index in range(T):
            assert detector.detect(Frame(index / 30, image, False, index)).shape == (543, 3)


def damaged_files(tmp_path: Path, damage: ModuleType) -> Iterator[tuple[str, bytes]]:
    """Ending and bytes of damaged files."""
    rng = random.Random(SEED)
    several = np.stack([PX, person(T, x_px=20)], axis=1)
    write_pose(tmp_path / "whole.pose", cocowholebody_components(), several)
    pose = (tmp_path / "whole.pose").read_bytes()
    arrays = {"keypoints.npy": array_bytes(several[..., :2]), "scores.npy": array_bytes(several[..., 2])}
    arrays |= {"fps.npy": array_bytes(np.array(30.0)), "times_s.npy": array_bytes(np.arange(T) / 30)}
    plain = array_bytes(mediapipe(PX))
    packed = {method: zipped(arrays, method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)}
    for _ in range(CASES):
        match rng.randrange(6):
            case 0 | 1:
                yield "npz", damage.mutated(rng.choice(list(packed.values())), rng)
            case 2:  # inside: the archive's own checksums find nothing
                name = rng.choice(list(arrays))
                head = arrays[name][:160] if rng.random() < 0.7 else arrays[name]
                yield "npz", zipped(arrays | {name: damage.mutated(head, rng) + arrays[name][len(head) :]})
            case 3:
                head = plain[:160] if rng.random() < 0.7 else plain
                yield "npy", damage.mutated(head, rng) + plain[len(head) :]
            case 4:
                yield "pose", damage.mutated(pose, rng)
            case _:
                yield "pose", damage.mutated(pose[:60], rng) + pose[60:]


def test_no_damage_ends_in_a_traceback_a_hang_or_2_gb(tmp_path: Path, damage: ModuleType) -> None:
    refused = 0
    for number, (ending, data) in enumerate(damaged_files(tmp_path, damage)):
        path = tmp_path / f"video.{ending}"
        path.write_bytes(data)
        try:
            with damage.bounded(), warnings.catch_warnings(action="error"):
                use(path)
        except UnreadableVideoError as error:
            refused += 1
            assert "\n" not in str(error) and "video." in str(error) and len(str(error)) < 600
        except BaseException as error:
            error.add_note(f"case {number}, {ending}")
            raise
        path.unlink()
    assert CASES / 4 < refused < CASES


def header(shape: str, descr: str = "<f4") -> bytes:
    """Start of an npy file that claims anything."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (117 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def unpacking_to(num_bytes: int, data: bytes) -> bytes:
    """An archive of one member that states another size."""
    place = data.index(b"PK\x01\x02") + 24
    return data[:place] + struct.pack("<I", num_bytes) + data[place + 4 :]


def pose_file(folder: Path, components: list[PoseHeaderComponent], fps: float = 30.0, frames: int = T) -> bytes:
    """A .pose file whose header claims these rows per second and this many frames."""
    num_points = sum(len(component.points) for component in components)
    write_pose(folder / "other.pose", components, np.ones((T, 1, num_points, 3)))
    data = (folder / "other.pose").read_bytes()
    body = T * num_points * 12
    return data[: -body - 10] + struct.pack("<fIH", fps, frames, 1) + data[len(data) - body :]


def body_of(points: list[str]) -> list[PoseHeaderComponent]:
    return [PoseHeaderComponent("POSE_LANDMARKS", points, [], [], "XYC")]


CLAIMS = {
    "zeros that unpack to 2 GB": (
        lambda f: unpacking_to(2_000_000_000, zipped({"keypoints.npy": header("(1250000, 133, 3)") + bytes(1000)})),
        f"expected at most {MAX_NPZ_BYTES:,}; write the points with np.save",
    ),
    "an array larger than its member": (
        lambda f: zipped({"keypoints.npy": header("(900000000, 133, 3)") + PX.tobytes()}),
        "an array that claims 1,436,400,000,128 bytes of 19,280",
    ),
    "an array larger than its file": (lambda f: header("(900000000, 133, 3)") + PX.tobytes(), "claims 1,436,400,000,1"),
    "a header without end": (lambda f: b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + PX.tobytes(), "that NumPy can read"),
    "a header of minus signs": (lambda f: header("(12, 133, " + "-" * 60 + "3)") + PX.tobytes(), "NumPy can read"),
    "people without number": (lambda f: array_bytes(np.ones((1, 4000, 133, 3))), "4,000 people in each row"),
    "a member of text": (lambda f: zipped({"keypoints": b"x,y\n1,2\n"}), "that NumPy can read"),
    "a file for a folder": (lambda f: zipped({"keypoints.npy/": b""}), "that NumPy can read"),
    "endless rows per second": (
        lambda f: zipped({"keypoints.npy": array_bytes(PX), "fps.npy": array_bytes(np.array(1e308))}),
        "'fps' is 1e+308, expected one number above 0, at most 1000",
    ),
    "a .pose of a million frames": (
        lambda f: pose_file(f, body_of(["NOSE"]), frames=1_000_000), "that pose-format can read",
    ),
    "a .pose without points": (lambda f: pose_file(f, body_of(["NO_NAME"])), "holds points of the shape (12, 1, 1, 2)"),
    "a .pose of no rate": (lambda f: pose_file(f, body_of(["NOSE"]), fps=float("inf")), "has inf rows per second"),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_is_checked_before_memory_is_taken(claim: str, tmp_path: Path, damage: ModuleType) -> None:
    write, expected = CLAIMS[claim]
    path = tmp_path / ("video" + (".pose" if ".pose" in claim else ".npy" if "file" in claim else ".npz"))
    path.write_bytes(write(tmp_path))
    with damage.bounded(most_bytes=500_000_000), pytest.raises(PointsError, match=r"^\S+: .*") as caught:
        read_points(path)
    assert expected in str(caught.value)


def test_arrays_that_do_not_count_may_be_anything(tmp_path: Path) -> None:
    """Some tools store boxes, or a dictionary, beside the points."""
    np.savez(tmp_path / "video.npz", keypoints=PX, boxes=np.ones((T, 4)), about=np.array([{"tool": "x"}], dtype=object))
    with zipfile.ZipFile(tmp_path / "video.npz", "a") as archive:
        archive.writestr("README.txt", "by a tool")
    assert read_points(tmp_path / "video.npz").array.shape == (T, 1, 133, 3)


def test_a_damaged_file_costs_its_video_and_no_other(
    tmp_path: Path, make_video: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    points = tmp_path / "points"
    points.mkdir()
    videos = [make_video(f"{name}.mp4", num_frames=T) for name in ("damaged", "whole")]
    np.savez_compressed(points / "whole.npz", keypoints=PX)
    data = bytearray((points / "whole.npz").read_bytes())
    data[300:316] = bytes(16)
    (points / "damaged.npz").write_bytes(data)
    config = ExtractConfig(
        videos=videos, root=tmp_path / "corpus", detector="precomputed", precomputed={"folder": points},
        max_failed_fraction=0.5,
    )  # fmt: skip
    outcome = extract_videos(config)
    assert list(outcome.extracted) == ["whole"] and list(outcome.quarantined) == ["damaged"]
    metadata = json.loads(CorpusLayout(config.root).metadata("damaged").read_text(encoding="utf-8"))
    assert metadata["status"] == "quarantined" and "damaged.npz: is not a .npz file" in metadata["reason"]
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("extract")]
    assert len(told) == 1 and told[0].startswith("warning: ") and "quarantined" in told[0], told
