"""Of several people the one who signs: looked for, chosen over the whole video, and kept to from frame to frame.

One person is the usual case and must cost nearly nothing: the detector works as if this module were not there, and now
and then a face detector looks whether somebody else is in the picture. Only then is the whole video looked through.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from signstreams.array_types import Floats
from signstreams.config.extract import ExtractConfig
from signstreams.extract.annotations import VideoAnnotations
from signstreams.extract.audition import audition, choose
from signstreams.extract.detections import in_flight
from signstreams.extract.detectors import Detector, DetectorKind, VideoContext
from signstreams.extract.following import BoxGuide, Cast, FollowingGuide, Guide, RegionDetector
from signstreams.extract.people import FaceFinder
from signstreams.extract.region import Box
from signstreams.extract.video import Frame, UnreadableVideoError
from signstreams.formats.metadata import SignerInfo

BOX_MARGIN = 0.15
"""Added on each side of a box of meta.csv, as a share of its width and height: hands leave a box around the body."""
LOOK_EVERY_S, FIRST_LOOKS_EVERY_S, NUM_FIRST_LOOKS = 2.0, 0.5, 4
"""How often to look for others: 6 ms each, and short videos need some looks, too."""


class CompanyError(Exception):
    """Several people are in a video that was taken for that of one: what was found so far may be somebody else's."""


class SignerChoice:
    """Who the signer of one video is, and the detector that keeps to that person.

    Attributes:
        info: For the metadata; complete when the video has been read.
    """

    def __init__(self, kind: DetectorKind, config: ExtractConfig, annotations: VideoAnnotations) -> None:
        self._kind, self._config, self._spans_s = kind, config, annotations.spans_s
        self._cast: Cast | None = None
        self._is_settled = not kind.sees_pixels or config.signer.choose == "none"
        self.info = SignerInfo(chosen_by="detector")

    def start(self, video: VideoContext) -> Detector:
        """The detector for a pass over the video. When its `detect` raises `CompanyError`, the pass has to begin anew.

        Raises:
            UnreadableVideoError: When the signer's box lies outside the frame.
        """
        if video.box is not None and self._kind.sees_pixels:
            region = _box_region(video)
            self.info = SignerInfo(chosen_by="box", region_px=region)
            return self._in_region(video, region, BoxGuide(video.box))
        if self._cast is not None:
            return self._in_region(
                video, self._cast.region(video.width_px, video.height_px), FollowingGuide(self._cast)
            )
        detector = self._kind.start(self._config, video)
        if not self._kind.sees_pixels:
            self.info = getattr(detector, "signer", self.info)  # its points may be of several people
        return detector if self._is_settled else _WatchingDetector(detector, self, video)

    def saw(self, num_people: int) -> None:
        """Note that a look showed one person, or nobody."""
        if num_people or self.info.num_people is None:
            self.info = SignerInfo(chosen_by="alone" if num_people else "detector", num_people=num_people)

    def hold_audition(self, video: VideoContext) -> bool:
        """Look through the whole video; whether there are several people to tell apart."""
        candidates = audition(video.path, self._spans_s, self._config.frames_fps)
        self._is_settled = True
        if len(candidates) < 2:
            self.saw(1)
            return False
        number, is_by_motion = choose(candidates, video.width_px)
        self._cast = Cast(candidates, number)
        self.info = SignerInfo(
            chosen_by="hand_motion" if is_by_motion else "size",
            num_people=len(candidates),
            region_px=self._cast.region(video.width_px, video.height_px),
            hand_motion=[round(candidate.motion, 2) for candidate in candidates],
        )
        return True

    def _in_region(self, video: VideoContext, region: Box, guide: Guide) -> Detector:
        x0, y0, x1, y1 = region
        part = video._replace(width_px=x1 - x0, height_px=y1 - y0, box=None)
        return RegionDetector(lambda: self._kind.start(self._config, part), region, guide)


class _WatchingDetector:
    """A detector on the whole frame that looks now and then whether its person has company."""

    def __init__(self, detector: Detector, choice: SignerChoice, video: VideoContext) -> None:
        self._detector, self._worker = detector, in_flight(detector)
        self._choice, self._video = choice, video
        self._finder = FaceFinder()
        self._num_looks, self._next_look_s = 0, -np.inf
        self._is_first = True

    def __enter__(self) -> Self:
        self._detector.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._finder.__exit__(*exception)
        self._detector.__exit__(*exception)

    @property
    def max_in_flight(self) -> int:
        """See `InFlight`."""
        return self._worker.max_in_flight

    def detect(self, frame: Frame) -> Floats:
        """See `Detector`; raises `CompanyError` when the signer has to be told from others first."""
        self.submit(frame)
        return self.collect()

    def submit(self, frame: Frame) -> None:
        """See `InFlight`; raises as `detect` does."""
        if frame.time_s >= self._next_look_s:
            self._look(frame)
        self._is_first = False
        self._worker.submit(frame)

    def collect(self) -> Floats:
        """See `InFlight`."""
        return self._worker.collect()

    def _look(self, frame: Frame) -> None:
        self._num_looks += 1
        self._next_look_s = frame.time_s + (FIRST_LOOKS_EVERY_S if self._num_looks < NUM_FIRST_LOOKS else LOOK_EVERY_S)
        num_people = len(self._finder.find(frame.image))
        if num_people < 2:
            self._choice.saw(num_people)
            return
        self._next_look_s = np.inf  # the audition looks at the whole video
        if not self._choice.hold_audition(self._video):
            return
        if not self._is_first:
            raise CompanyError
        self._detector.__exit__(None, None, None)
        self._detector = self._choice.start(self._video)
        self._worker = in_flight(self._detector)
        self._detector.__enter__()


def _box_region(video: VideoContext) -> Box:
    assert video.box is not None
    x0, y0, x1, y1 = video.box
    if min(x1, video.width_px) - max(x0, 0) < 1 or min(y1, video.height_px) - max(y0, 0) < 1:
        box = " ".join(f"{value:g}" for value in video.box)
        raise UnreadableVideoError(
            f"the signer's box {box} lies outside the frame of {video.width_px}x{video.height_px} px"
        )
    margin_x, margin_y = BOX_MARGIN * (x1 - x0), BOX_MARGIN * (y1 - y0)
    return (
        max(0, int(x0 - margin_x)),
        max(0, int(y0 - margin_y)),
        min(video.width_px, int(np.ceil(x1 + margin_x))),
        min(video.height_px, int(np.ceil(y1 + margin_y))),
    )
