"""Which row of a file of points belongs to which frame, and whether file and video are of one length."""

from __future__ import annotations

import numpy as np

from signstreams.extract.detectors import VideoContext
from signstreams.extract.points_file import PointsError, PointsFile
from signstreams.extract.video import Frame

MAX_RATE_ERROR = 0.005
"""Up to which two rates are one: 29.97 and 30."""
SAME_LENGTH_RATIO = 0.01
"""Rows that number the frames of the video to this share belong to frames, whatever rate the file states: many tools
write a default, or a rounded one."""
MAX_LENGTH_RATIO, MIN_LENGTH_ROWS = 0.05, 2
"""Most that rows and frames may differ in number."""
_EPS = 1e-6  # timestamps are sums of rounded steps


class RowFinder:
    """Rows of one video's frames: by number, or by time where the file brings times or a rate of its own.

    Args:
        file: The points.
        video: What the video declares.
        is_whole: Whether all of the video is going to be read, so that rows that no frame asks for are too many.
    """

    def __init__(self, file: PointsFile, video: VideoContext, *, is_whole: bool) -> None:
        self._file, self._video, self._is_whole = file, video, is_whole
        self._num_rows = len(file.array)
        self._by_number = file.times_s is None and (file.fps is None or self._rates_agree(file.fps))
        self._rate_hz = (file.fps if not self._by_number else None) or video.fps
        self._max_away_s = (
            0.75 * float(np.median(np.diff(file.times_s))) if file.times_s is not None and self._num_rows > 1 else 0.5
        )
        self._offset_s: float | None = None
        self._num_asked = self._num_without = 0
        self._last_asked = -1  # highest row that a frame belongs to, whether it exists or not
        self._step = 0  # most rows between two frames that follow each other: frames are taken at a lower rate

    @property
    def _is_timed(self) -> bool:
        return self._file.times_s is not None

    def row(self, frame: Frame) -> int | None:
        """Row of the frame; None when the file has none for it."""
        if self._is_timed:
            asked = self._nearest(frame.time_s)
        elif self._by_number:
            asked = frame.source_index
        else:
            asked = self._at_rate(frame)
        self._num_asked += 1
        if asked is not None and self._last_asked >= 0:
            self._step = max(self._step, asked - self._last_asked)
        self._last_asked = max(self._last_asked, -1 if asked is None else asked)
        if asked is None or not 0 <= asked < self._num_rows:
            self._num_without += 1
            return None
        return asked

    def check(self) -> str | None:
        """After the last frame: a note on frames without a row, None when there are none.

        Raises:
            PointsError: When rows and frames differ too much in number for the rows to be of these frames.
        """
        if not self._num_asked:
            return None
        path, without = self._file.path, self._num_without
        note = f"{path.name} has no row for {without} of {self._num_asked} frames" if without else None
        if self._is_timed:
            if without == self._num_asked:
                raise PointsError(f"{path}: no row is at the time of a frame; expected seconds of the video in times_s")
            return note
        slack = max(MIN_LENGTH_ROWS, self._step)
        is_short = without > max(MIN_LENGTH_ROWS, MAX_LENGTH_RATIO * self._num_asked)
        left_over = self._num_rows - 1 - self._last_asked
        is_long = self._is_whole and left_over > max(slack, MAX_LENGTH_RATIO * self._num_rows)
        if is_short or is_long:
            frames = self._last_asked + 1
            unit = "frames" if self._by_number else f"frames at the file's {self._rate_hz:g} a second"
            raise PointsError(
                f"{path}: found {self._num_rows} rows, expected about {frames} as the video has {unit}; "
                "find the points in this very video, or store fps or times_s with them"
            )
        return note

    def _rates_agree(self, fps: float) -> bool:
        """Whether rows are frames: their rate is the video's, or at least their number is."""
        video = self._video
        if not video.fps or abs(fps - video.fps) <= MAX_RATE_ERROR * video.fps:
            return True
        declared = round(video.fps * video.duration_s) if video.duration_s else 0
        return abs(self._num_rows - declared) <= max(1, SAME_LENGTH_RATIO * declared)

    def _at_rate(self, frame: Frame) -> int:
        """Row by time, counted from the first picture, which need not be at 0 s."""
        if self._offset_s is None:  # the video's rate is known: it is not that of the file
            self._offset_s = frame.time_s - frame.source_index / self._video.fps
        place = (frame.time_s - self._offset_s) * self._rate_hz
        nearest = int(np.ceil(place - 0.5 - _EPS))  # halfway between two, the earlier: it shows until the later comes
        return min(nearest, self._num_rows - 1) if place < self._num_rows - _EPS else nearest  # the last shows on

    def _nearest(self, time_s: float) -> int | None:
        times_s = self._file.times_s
        assert times_s is not None
        after = int(np.searchsorted(times_s, time_s))
        choices = [row for row in (after - 1, after) if 0 <= row < len(times_s)]
        best = min(choices, key=lambda row: abs(times_s[row] - time_s))
        return best if abs(times_s[best] - time_s) <= self._max_away_s else None
