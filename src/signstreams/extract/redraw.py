"""The preview of a video that is extracted already, drawn anew from its results: one that was deleted comes back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.config.extract import ExtractConfig
from signstreams.extract.preview import NUM_TILES, Preview, write_notice
from signstreams.extract.privacy import protect
from signstreams.extract.tracks import FrameBoxes
from signstreams.extract.video import UnreadableVideoError, VideoReader
from signstreams.formats.arrays import Tracks, keypoint_pieces, read_tracks
from signstreams.formats.crops import CropReader, list_crops
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import VideoMetadata
from signstreams.streams import STREAMS, BoxState


def restore_preview(video_path: Path, layout: CorpusLayout, config: ExtractConfig, metadata: VideoMetadata) -> bool:
    """Draw the preview of current results where it is missing: of the video, only the frames shown are decoded.

    Returns:
        Whether it is there now. When frames do not come again as they came before, the video has to be extracted anew.

    Raises:
        OSError: When the video cannot be opened, or the preview not be written.
    """
    path = layout.preview(metadata.video_id)
    if path.is_file():
        return True
    if metadata.status == "quarantined":
        write_notice(path, "quarantined")
        return True
    try:
        preview = _drawn(video_path, layout, config, metadata.video_id)
    except (UnreadableVideoError, ValueError):
        return False
    preview.write(path, metadata.signer.region_px)
    return True


def _drawn(video_path: Path, layout: CorpusLayout, config: ExtractConfig, video_id: str) -> Preview:
    tracks = read_tracks(layout.tracks(video_id))
    num_frames = len(tracks.times_s)
    rows = np.linspace(0, num_frames - 1, min(NUM_TILES, num_frames)).round().astype(int).tolist()
    times_s = tracks.times_s[rows].tolist()
    keypoints = _keypoints(layout.keypoints(video_id), rows)
    crops = [_crops(layout.crops(stream, video_id), rows) for stream in STREAMS]
    preview = Preview(None)
    spans_s = [(time_s, float(np.nextafter(time_s, np.inf))) for time_s in times_s]  # of one frame each
    with VideoReader(video_path, frames_fps=config.frames_fps, spans_s=spans_s) as reader:
        for row, time_s, frame in zip(rows, times_s, reader.frames(config.fps), strict=True):
            if frame.time_s != time_s:
                raise ValueError(f"the frame at {time_s} s did not come again")
            boxes = _boxes(tracks, row)
            image = protect(frame.image, keypoints[row], boxes, config.face_privacy)
            preview.offer(time_s, image, keypoints[row], boxes, [own.get(row) for own in crops])
    return preview


def _keypoints(path: Path, rows: list[int]) -> dict[int, Floats]:
    """Row to its (543, 3) points."""
    found: dict[int, Floats] = {}
    start = 0
    for piece in keypoint_pieces(path):
        found |= {row: piece[row - start] for row in rows if start <= row < start + len(piece)}
        start += len(piece)
    return found


def _crops(path: Path, rows: list[int]) -> dict[int, Pixels]:
    """Row to its crop, RGB, of those that have one."""
    reader = CropReader()
    try:
        data = {crop.frame: reader.read(crop) for crop in list_crops(path) if crop.frame in rows}
    finally:
        reader.close()
    bgr = {row: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for row, jpeg in data.items()}
    return {row: cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) for row, crop in bgr.items()}


def _boxes(tracks: Tracks, row: int) -> FrameBoxes:
    own = [tracks.streams[stream] for stream in STREAMS]
    corners = np.array([track.box[row] for track in own], np.float64)  # (S, 4)
    state = np.array([track.state[row] for track in own], np.uint8)
    boxes = np.column_stack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2] - corners[:, 0]])
    boxes[state == BoxState.MISSING] = np.nan
    return FrameBoxes(boxes, state, np.array([track.confidence[row] for track in own]))
