"""Keeping to one person: the detector sees that person's part of the frame, and what it finds must be that person."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.extract.audition import Candidate
from signstreams.extract.detections import in_flight
from signstreams.extract.detectors import Detector, missing_keypoints
from signstreams.extract.people import Face, FaceFinder, Person, match
from signstreams.extract.region import Box, blank_others, signing_box, union
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import pose_index

_FACES_EVERY_S = 0.1
_OTHERS_STAY_S = 2.0
_RESTART_AFTER, _RESTART_AFTER_AT_MOST = 3, 48
_NOSE = pose_index("nose")


class View(Protocol):
    """What is known of the people in one frame."""

    def blank(self, part: Pixels, corner: tuple[int, int]) -> Pixels:
        """Blank other people, in place, in a part of the frame that starts at ``corner`` (x, y px)."""
        ...

    def is_signer(self, x: float, y: float) -> bool:
        """Whether a nose at this place of the frame (px) is the signer's."""
        ...


class Guide(Protocol):
    """Knows where the signer is."""

    def __exit__(self, *exception: object) -> None: ...

    def look(self, frame: Frame) -> View:
        """At the next frame."""
        ...


class RegionDetector:
    """A detector that sees a part of the frame only. Points are fractions of the whole frame all the same.

    Where the body that it finds is somebody else's, the frame holds nothing: a gap is filled or left out later, while
    points of two people in one track would be taken for true. A detector that stays with somebody else starts anew.
    """

    def __init__(self, start: Callable[[], Detector], region: Box, guide: Guide) -> None:
        self._start, self._region, self._guide = start, region, guide
        self._detector = start()
        self._worker = in_flight(self._detector)
        self._views: deque[tuple[View, int, int]] = deque()  # with width and height of the frame
        self._collected: deque[Floats] = deque()  # of a detector that has ended
        self._num_foreign, self._patience = 0, _RESTART_AFTER

    def __enter__(self) -> Self:
        self._detector.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._detector.__exit__(*exception)
        self._guide.__exit__(*exception)

    @property
    def max_in_flight(self) -> int:
        """See `InFlight`."""
        return self._worker.max_in_flight

    def detect(self, frame: Frame) -> Floats:
        """See `Detector`."""
        self.submit(frame)
        return self.collect()

    def submit(self, frame: Frame) -> None:
        """See `InFlight`."""
        view = self._guide.look(frame)
        x0, y0, x1, y1 = self._region
        part = view.blank(np.array(frame.image[y0:y1, x0:x1]), (x0, y0))
        self._worker.submit(Frame(frame.time_s, part, frame.is_repeat, frame.source_index))
        self._views.append((view, frame.image.shape[1], frame.image.shape[0]))

    def collect(self) -> Floats:
        """See `InFlight`."""
        keypoints = (self._collected.popleft() if self._collected else self._worker.collect()).copy()
        view, width_px, height_px = self._views.popleft()
        x0, y0, x1, y1 = self._region
        found = keypoints[:, 2] > 0
        keypoints[found, 0] = (keypoints[found, 0] * (x1 - x0) + x0) / width_px
        keypoints[found, 1] = (keypoints[found, 1] * (y1 - y0) + y0) / height_px
        nose = keypoints[_NOSE]
        if not found[_NOSE] or view.is_signer(nose[0] * width_px, nose[1] * height_px):
            self._num_foreign, self._patience = 0, _RESTART_AFTER
            return keypoints
        self._num_foreign += 1
        if self._num_foreign >= self._patience:
            self._restart()
        return missing_keypoints()

    def _restart(self) -> None:
        while len(self._collected) < len(self._views):
            self._collected.append(self._worker.collect())
        self._detector.__exit__(None, None, None)
        self._detector = self._start()
        self._worker = in_flight(self._detector)
        self._detector.__enter__()
        self._num_foreign, self._patience = 0, min(2 * self._patience, _RESTART_AFTER_AT_MOST)


class BoxGuide:
    """The signer is where meta.csv says: a nose in the box is the signer's; nothing is known of others."""

    def __init__(self, box: tuple[float, float, float, float]) -> None:
        self._box = box

    def __exit__(self, *exception: object) -> None:
        pass

    def look(self, frame: Frame) -> View:
        """See `Guide`."""
        return self

    def blank(self, part: Pixels, corner: tuple[int, int]) -> Pixels:
        """See `View`."""
        return part

    def is_signer(self, x: float, y: float) -> bool:
        """See `View`."""
        x0, y0, x1, y1 = self._box
        return bool(x0 <= x <= x1 and y0 <= y <= y1)


class Cast(NamedTuple):
    """People of a video, from left to right.

    Attributes:
        candidates: Everybody.
        signer: Number of the signer.
    """

    candidates: Sequence[Candidate]
    signer: int

    def region(self, width_px: int, height_px: int) -> Box:
        """What the signer needs of the frame throughout the video."""
        boxes = []
        signer = self.candidates[self.signer].person
        others = [c.person for number, c in enumerate(self.candidates) if number != self.signer]
        for face, time_s in zip(signer.faces, signer.times_s, strict=True):
            beside = [other.faces[other.times_s.index(time_s)] for other in others if time_s in other.times_s]
            boxes.append(signing_box(face, beside, width_px, height_px))
        return union(boxes)


class FollowingGuide:
    """Follows everybody's face from frame to frame."""

    def __init__(self, cast: Cast) -> None:
        self._finder = FaceFinder()
        self._people = [_first_sighting(candidate.person) for candidate in cast.candidates]
        self._signer = self._people[cast.signer]
        self._strangers: list[Face] = []
        self._looked_s = -np.inf

    def __exit__(self, *exception: object) -> None:
        self._finder.__exit__(*exception)

    def look(self, frame: Frame) -> View:
        """See `Guide`."""
        now_s = frame.time_s
        if now_s - self._looked_s >= _FACES_EVERY_S:
            self._looked_s = now_s
            faces = self._finder.find(frame.image)
            owners = match(self._people, faces, now_s)
            for index, number in owners.items():
                self._people[number].see(faces[index], now_s)
                self._people[number].forget()
            self._strangers = [face for index, face in enumerate(faces) if index not in owners]
        others = [
            person.faces[-1]
            for person in self._people
            if person is not self._signer and abs(now_s - person.times_s[-1]) < _OTHERS_STAY_S
        ]
        return _FaceView(self._signer.faces[-1], abs(now_s - self._signer.times_s[-1]), others, self._strangers)


class _FaceView(NamedTuple):
    """Faces of one frame, as last seen.

    Attributes:
        face: The signer's.
        age_s: Time since.
        others: Those of the others in the cast.
        strangers: Of nobody known: passers-by, and hands that look like faces; not to be blanked.
    """

    face: Face
    age_s: float
    others: list[Face]
    strangers: list[Face]

    def blank(self, part: Pixels, corner: tuple[int, int]) -> Pixels:
        """See `View`."""
        return blank_others(part, corner, self.face, self.others)

    def is_signer(self, x: float, y: float) -> bool:
        """See `View`."""
        distance = self.face.distance(x, y)
        # A stranger in the signer's place is the signer in another light, unless the signer has been away for long.
        strangers = [s for s in self.strangers if self.age_s > 0.5 or self.face.distance(s.x, s.y) >= 1]
        # The nose lies within half a side of the middle; the head may have moved on since.
        return distance <= 0.75 + min(0.75, 1.5 * self.age_s) and all(
            distance < other.distance(x, y) for other in self.others + strangers
        )


def _first_sighting(person: Person) -> Person:
    return Person(person.faces[:1], person.times_s[:1], person.looks, person.num_seen)
