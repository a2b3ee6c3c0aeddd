"""Which of several people signs, and a detector that stays with that person.

Usually one person is in the picture, which must cost next to nothing: the detector sees whole frames, and now and then
a face detector checks for somebody else. Only then the whole video is searched for people, the one whose hands move
most is chosen, and the detector gets that person's part of each frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.extract.detectors import Detector, DetectorKind, VideoContext, in_flight, missing_keypoints
from signstreams.extract.people import (
    HEAD_UNITS,
    MIN_RELATIVE_SIZE,
    SMALL,
    Box,
    Face,
    FaceFinder,
    Person,
    blank_others,
    link,
    match,
    signing_box,
)
from signstreams.extract.settings import ExtractConfig
from signstreams.extract.video import Frame, UnreadableVideoError, VideoReader
from signstreams.formats.landmarks import pose_index
from signstreams.formats.video_metadata import SignerInfo
from signstreams.tracker.body import BodyTracker
from signstreams.tracker.engine import Engine, shared_engine

Spans = Sequence[tuple[float, float]]

# -- The signer of a video


class SeveralPeopleError(Exception):
    """A video that seemed to show one person shows several: what was found so far may be somebody else's."""


class SignerTracker:
    """Who the signer of a video is, and the detector that stays with that person."""

    CHECK_EVERY_S, FIRST_CHECKS_EVERY_S, NUM_FIRST_CHECKS = 2.0, 0.5, 4
    """How often to check for other people; short videos need several checks, too."""
    TILES_EVERY = 2
    """Small people are searched in every second check, the first one included: 60 ms at 720p instead of 6."""

    def __init__(self, kind: DetectorKind, config: ExtractConfig, spans_s: Spans | None) -> None:
        self._kind, self._config, self._spans_s = kind, config, spans_s
        self._choice: ChosenSigner | None = None
        self._is_settled = not kind.sees_pixels or config.signer.choose == "none"
        self.info = SignerInfo(chosen_by="detector")  # for the metadata; complete once the video has been read

    @property
    def engine(self) -> Engine:
        """What finds faces and bodies."""
        return shared_engine(self._config.tracker.models, self._config.tracker.device)

    def start(self, video: VideoContext) -> Detector:
        """Detector for one pass over the video. If it raises `SeveralPeopleError`, the pass has to start over.

        Raises:
            UnreadableVideoError: The signer's box is outside the frame.
        """
        if video.box is not None and self._kind.sees_pixels:
            region = _box_region(video)
            self.info = SignerInfo(chosen_by="box", region_px=region)
            return self._in_region(video, region, BoxLocator(video.box))
        if self._choice is not None:
            region = self._choice.region(video.width_px, video.height_px)
            return self._in_region(video, region, FaceLocator(self.engine, self._choice))
        detector = self._kind.start(self._config, video)
        if not self._kind.sees_pixels:
            self.info = getattr(detector, "signer", self.info)  # its points may be of several people
        return detector if self._is_settled else _CheckingDetector(detector, self, video)

    def note_people(self, num_people: int) -> None:
        """Record that a check found one person, or nobody."""
        if num_people or self.info.num_people is None:
            self.info = SignerInfo(chosen_by="alone" if num_people else "detector", num_people=num_people)

    def choose(self, video: VideoContext) -> bool:
        """Search the whole video for people and choose the signer; whether there are several."""
        candidates = find_candidates(self.engine, video.path, self._spans_s, self._config.frames_fps)
        self._is_settled = True
        if len(candidates) < 2:
            self.note_people(1)
            return False
        index, is_by_motion = choose_candidate(candidates, video.width_px)
        self._choice = ChosenSigner(candidates, index)
        self.info = SignerInfo(
            chosen_by="hand_motion" if is_by_motion else "size",
            num_people=len(candidates),
            region_px=self._choice.region(video.width_px, video.height_px),
            hand_motion=[round(candidate.motion, 2) for candidate in candidates],
        )
        return True

    def _in_region(self, video: VideoContext, region: Box, locator: BoxLocator | FaceLocator) -> Detector:
        x0, y0, x1, y1 = region
        part = video._replace(width_px=x1 - x0, height_px=y1 - y0, box=None)
        return RegionDetector(lambda: self._kind.start(self._config, part), region, locator)


class _Wrapper:
    """A detector that passes frames to another one, which it may replace."""

    def __init__(self, detector: Detector) -> None:
        self._detector, self._worker = detector, in_flight(detector)

    def __enter__(self) -> Self:
        self._detector.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._detector.__exit__(*exception)

    @property
    def max_in_flight(self) -> int:
        return self._worker.max_in_flight

    def detect(self, frame: Frame) -> Floats:
        self.submit(frame)
        return self.collect()

    def submit(self, frame: Frame) -> None:
        self._worker.submit(frame)

    def collect(self) -> Floats:
        return self._worker.collect()

    def _replace(self, start: Callable[[], Detector]) -> None:
        self._detector.__exit__(None, None, None)
        self._detector = start()
        self._worker = in_flight(self._detector)
        self._detector.__enter__()


class _CheckingDetector(_Wrapper):
    """A detector on whole frames that checks now and then whether other people are in the picture."""

    def __init__(self, detector: Detector, tracker: SignerTracker, video: VideoContext) -> None:
        super().__init__(detector)
        self._tracker, self._video = tracker, video
        self._finder = FaceFinder(tracker.engine)
        self._num_checks, self._next_check_s = 0, -np.inf
        self._is_first = True

    def submit(self, frame: Frame) -> None:
        """See `InFlight`; raises `SeveralPeopleError` when the signer has to be chosen first."""
        if frame.time_s >= self._next_check_s:
            self._check(frame)
        self._is_first = False
        super().submit(frame)

    def _check(self, frame: Frame) -> None:
        tracker = self._tracker
        near = None if self._num_checks % tracker.TILES_EVERY == 0 else ()
        self._num_checks += 1
        is_early = self._num_checks < tracker.NUM_FIRST_CHECKS
        self._next_check_s = frame.time_s + (tracker.FIRST_CHECKS_EVERY_S if is_early else tracker.CHECK_EVERY_S)
        num_people = len(self._finder.find(frame.image, near))
        if num_people < 2:
            tracker.note_people(num_people)
            return
        self._next_check_s = np.inf  # the choice considers the whole video
        if not tracker.choose(self._video):
            return
        if not self._is_first:
            raise SeveralPeopleError
        self._replace(lambda: tracker.start(self._video))


# -- Choosing: how much each person's hands move at moments spread over the video

RUN_LENGTH = 4  # frames per moment: one position and three steps of the hands
RUN_HZ = 8.0
"""Rate of these frames. Slower than video: in 1/8 s a signing hand moves far more than the body model jitters."""
RUN_S = RUN_LENGTH / RUN_HZ
MOMENT_EVERY_S, MIN_MOMENTS, MAX_MOMENTS = 2.0, 6, 24
MIN_PRESENCE = 0.2  # somebody seen in a smaller share of the moments is a passer-by, or a false detection
MAX_SPEED = 20.0  # in head units per second; at higher speeds the body model has jumped
_MAX_HEAD_STEP = 1.0  # sides of the face from one of these frames to the next; a face beyond is another person's
_MIN_VISIBILITY = 0.5
_NOSE, _LEFT, _RIGHT = pose_index("nose"), pose_index("left_shoulder"), pose_index("right_shoulder")
_WRISTS = [pose_index("left_wrist"), pose_index("right_wrist")]

SIGNS_FROM, RESTS_UP_TO = 0.9, 0.6
"""Motion of the hands of those who sign, at least, and of those who do not, at most, on real and rendered clips."""

Run = list[tuple[float, Pixels]]  # time and image of consecutive frames
_Moment = tuple[float, list[Face], list[float]]  # time, faces, and the hand speed of each person


class Candidate(NamedTuple):
    """Somebody who may be the signer."""

    person: Person  # with the sightings at the moments searched
    motion: float
    """Mean speed of the hands relative to the shoulders over all moments (0 where absent), in head units per
    second."""


def find_candidates(
    engine: Engine, path: Path, spans_s: Spans | None = None, frames_fps: float = 25.0
) -> list[Candidate]:
    """People seen side by side in a video or its spans, from left to right; none or one if there are not several."""
    sightings: list[_Moment] = []
    finder = FaceFinder(engine)
    bodies: dict[int, BodyTracker] = {}  # one per place in the row of people
    with suppress(UnreadableVideoError):  # extraction will report it
        for run in _runs(path, spans_s, frames_fps):
            faces = [sorted(finder.find(image), key=lambda face: face.x) for _, image in run]
            sightings.append(
                (
                    run[0][0],
                    faces[0],
                    [
                        _hand_speed(bodies.setdefault(k, BodyTracker(engine)), run, faces, k)
                        for k in range(len(faces[0]))
                    ],
                )
            )
    return _candidates(sightings)


def choose_candidate(candidates: Sequence[Candidate], width_px: int) -> tuple[int, bool]:
    """Index of the signer, and whether hand motion decided.

    Hands that move less than a fifth of a head unit per second do not sign, and a lead below a tenth is chance; then
    the largest person is chosen, of equally large ones the most central. Somebody in the background is the signer only
    if nobody in front signs: the body model jitters more on small people.
    """
    largest = max(candidate.person.place[2] for candidate in candidates)
    is_small = [candidate.person.place[2] < SMALL * largest for candidate in candidates]
    in_front = max(c.motion for c, small in zip(candidates, is_small, strict=True) if not small)
    behind = max((c.motion for c, small in zip(candidates, is_small, strict=True) if small), default=0.0)
    if behind < SIGNS_FROM or in_front > RESTS_UP_TO:
        candidates = [c._replace(motion=-1.0) if small else c for c, small in zip(candidates, is_small, strict=True)]
    motions = [candidate.motion for candidate in candidates]
    first, second = sorted(motions, reverse=True)[:2]
    if first >= 0.2 and second < 0.9 * first:
        return motions.index(first), True
    places = [candidate.person.place for candidate in candidates]
    prominence = [size * (1 - 0.5 * abs(x / width_px - 0.5)) for x, _, size in places]  # small people lose anyway
    return prominence.index(max(prominence)), False


def _candidates(sightings: list[_Moment]) -> list[Candidate]:
    people = link((time_s, faces) for time_s, faces, _ in sightings)
    speed_of = {id(face): speed for _, faces, speeds in sightings for face, speed in zip(faces, speeds, strict=True)}
    least = max(min(2, len(sightings)), MIN_PRESENCE * len(sightings))
    steady = [person for person in people if len(person.faces) >= least]
    if not steady:
        return []
    largest = max(person.place[2] for person in steady)
    steady = sorted((p for p in steady if p.place[2] >= MIN_RELATIVE_SIZE * largest), key=lambda p: p.place[0])
    times = [time_s for person in steady for time_s in person.times_s]
    if len(set(times)) == len(times):  # one after the other, as in an edited film: nobody to tell apart
        return [Candidate(person, 0.0) for person in steady[:1]]
    return [Candidate(person, sum(speed_of[id(face)] for face in person.faces) / len(sightings)) for person in steady]


def _hand_speed(body: BodyTracker, run: Run, faces: Sequence[list[Face]], index: int) -> float:
    """Speed of a person's wrists relative to the shoulders, head units per second: mean of both, median over steps.

    A wrist that is not visible counts as still: the body model's guesses of it jitter. ``faces`` are those found in
    each frame; ``index`` is that of the person's face in the first one.
    """
    first = face = faces[0][index]
    height_px, width_px = run[0][1].shape[:2]
    # One box for all frames: with a box that follows the face, the body model would jitter along.
    x0, y0, x1, y1 = signing_box(first, [other for other in faces[0] if other is not first], width_px, height_px)
    parts, heads = [], []
    for (_, image), seen in zip(run, faces, strict=True):
        nearest = min(seen, key=lambda other: face.distance(other.x, other.y), default=None)
        is_seen = nearest is not None and face.distance(nearest.x, nearest.y) <= _MAX_HEAD_STEP
        face = nearest if nearest is not None and is_seen else face
        others = [other for other in seen if other is not face]
        parts.append(blank_others(np.array(image[y0:y1, x0:x1]), (x0, y0), face, others))
        # Nobody's, and so without points, where somebody in front hides the face.
        heads.append((face.x - x0, face.y - y0, face.size_px * is_seen))
    speeds, before, before_s = [], None, 0.0
    for points, (time_s, _) in zip(body.track(parts, np.array(heads)), run, strict=True):
        wrists = None
        if not np.isnan(points[_NOSE, 0]):
            wrists = points[_WRISTS][:, [0, 1, 3]]  # (2, 3) x, y from the middle of the shoulders, px, and visibility
            wrists[:, :2] -= (points[_LEFT, :2] + points[_RIGHT, :2]) / 2
        if before is not None and wrists is not None:
            both = (wrists[:, 2] > _MIN_VISIBILITY) & (before[:, 2] > _MIN_VISIBILITY)
            step = np.linalg.norm(wrists[:, :2] - before[:, :2], axis=-1) * both / (HEAD_UNITS * first.size_px)
            speeds.append(min(MAX_SPEED, float(step.mean()) / (time_s - before_s)))
        before, before_s = wrists, time_s
    return float(np.median(speeds)) if speeds else 0.0


def _runs(path: Path, spans_s: Spans | None, frames_fps: float) -> Iterator[Run]:
    """Short runs of frames at moments spread evenly over the video, or over the spans."""
    if spans_s is None:
        with VideoReader(path, frames_fps=frames_fps) as reader:
            duration_s = reader.duration_s
            if not duration_s:  # not declared, as in recordings of browsers, or declared as 0
                duration_s = max(frame.time_s for frame in reader.frames(1.0)) + 1.0
        spans_s = [(0.0, duration_s)]
    moments = [(start, start + RUN_S) for start in _moments(spans_s)]
    ends_s = iter([end for _, end in moments])
    run: Run = []
    end_s = next(ends_s)
    with VideoReader(path, frames_fps=frames_fps, spans_s=moments) as reader:
        for frame in reader.frames(RUN_HZ):
            if frame.time_s >= end_s:
                if run:
                    yield run
                    run = []
                end_s = next((end for end in ends_s if end > frame.time_s), np.inf)
            if not frame.is_repeat:
                run.append((frame.time_s, frame.image))
    if run:
        yield run


def _moments(spans_s: Spans) -> list[float]:
    """Starts of the runs, s: evenly over the spans joined end to end, at least the length of a run apart."""
    total_s = sum(end - start for start, end in spans_s)
    wanted = int(np.clip(round(total_s / MOMENT_EVERY_S), MIN_MOMENTS, MAX_MOMENTS))
    number = max(1, min(wanted, int(total_s / RUN_S)))
    moments: list[float] = []
    for k in range(number):
        offset_s = (k + 0.5) * total_s / number
        for start, end in spans_s:
            if offset_s < end - start:
                moment = max(start, start + offset_s - RUN_S / 2)
                moments.append(max(moment, moments[-1] + RUN_S) if moments else moment)
                break
            offset_s -= end - start
    return moments


# -- Where the signer is in a frame

_FACES_EVERY_S = 0.1
_CLOSE = 3.0  # sides of the signer's face; while somebody is so near, faces are searched in every frame
_OTHERS_STAY_S = 2.0
BOX_MARGIN = 0.15
"""Added on each side of a box of meta.csv, as a share of its width and height: hands leave a box around the body."""


class BoxLocator:
    """The signer is where meta.csv says: a nose in the box is the signer's; nothing is known about others."""

    def __init__(self, box: tuple[float, float, float, float]) -> None:
        self._box = box

    def locate(self, frame: Frame) -> Self:
        """See `FaceLocator`."""
        return self

    def blank(self, part: Pixels, corner: tuple[int, int]) -> Pixels:
        """See `FaceView`."""
        return part

    def head(self, corner: tuple[int, int]) -> None:
        """See `FaceView`; the box holds a body, and does not say where its head is."""

    def is_signer(self, x: float, y: float) -> bool:
        """See `FaceView`."""
        x0, y0, x1, y1 = self._box
        return bool(x0 <= x <= x1 and y0 <= y <= y1)


def _box_region(video: VideoContext) -> Box:
    """Part of the frame that the detector sees for a box of meta.csv."""
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


class ChosenSigner(NamedTuple):
    """People of a video, from left to right, and which of them signs."""

    candidates: Sequence[Candidate]  # everybody
    signer: int  # index of the signer

    def region(self, width_px: int, height_px: int) -> Box:
        """Part of the frame that the signer needs throughout the video."""
        boxes: list[Box] = []
        signer = self.candidates[self.signer].person
        others = [c.person for number, c in enumerate(self.candidates) if number != self.signer]
        for face, time_s in zip(signer.faces, signer.times_s, strict=True):
            beside = [other.faces[other.times_s.index(time_s)] for other in others if time_s in other.times_s]
            boxes.append(signing_box(face, beside, width_px, height_px))
        low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
        return int(low[0]), int(low[1]), int(high[2]), int(high[3])


class FaceLocator:
    """Follows everybody's face from frame to frame."""

    def __init__(self, engine: Engine, choice: ChosenSigner) -> None:
        self._finder = FaceFinder(engine)
        self._people = [
            Person(c.person.faces[:1], c.person.times_s[:1], c.person.looks, c.person.num_seen)
            for c in choice.candidates
        ]
        self._signer = self._people[choice.signer]
        self._strangers: list[Face] = []
        self._searched_s = -np.inf
        self._is_crowded = False

    def locate(self, frame: Frame) -> FaceView:
        """What is known about the people in the next frame."""
        now_s = frame.time_s
        if self._is_crowded or now_s - self._searched_s >= _FACES_EVERY_S:
            self._searched_s = now_s
            known = [person.faces[-1] for person in self._people]
            faces = self._finder.find(frame.image, near=known)
            owners = match(self._people, faces, now_s)
            for index, number in owners.items():
                person = self._people[number]
                person.see(faces[index], now_s)
                del person.faces[:-1], person.times_s[:-1]  # the last sighting is enough
            self._strangers = [face for index, face in enumerate(faces) if index not in owners]
        others = [
            person.faces[-1]
            for person in self._people
            if person is not self._signer and abs(now_s - person.times_s[-1]) < _OTHERS_STAY_S
        ]
        face = self._signer.faces[-1]
        self._is_crowded = any(face.distance(other.x, other.y) < _CLOSE for other in others)
        return FaceView(face, abs(now_s - self._signer.times_s[-1]), others, self._strangers)


class FaceView(NamedTuple):
    """Faces of one frame, as last seen."""

    face: Face  # face of the signer
    age_s: float  # time since it was seen
    others: list[Face]  # faces of the other candidates
    strangers: list[Face]  # faces of nobody known: passers-by, and hands that look like faces; not to be blanked

    def blank(self, part: Pixels, corner: tuple[int, int]) -> Pixels:
        """Blank other people, in place, in a part of the frame that starts at ``corner`` (x, y px)."""
        return blank_others(part, corner, self.face, self.others)

    @property
    def _reach(self) -> float:
        """Sides of the face box: the nose is within half a side of the middle; the head may have moved since."""
        return 0.75 + min(0.75, 1.5 * self.age_s)

    def head(self, corner: tuple[int, int]) -> tuple[float, float, float]:
        """`Frame.head` in a part of the frame that starts at ``corner`` (x, y px)."""
        return self.face.x - corner[0], self.face.y - corner[1], self._reach * self.face.size_px

    def is_signer(self, x: float, y: float) -> bool:
        """Whether a nose at this place of the frame (px) is the signer's."""
        distance = self.face.distance(x, y)
        # A stranger in the signer's place is the signer in another light, unless the signer has been away for long.
        strangers = [s for s in self.strangers if self.age_s > 0.5 or self.face.distance(s.x, s.y) >= 1]
        return distance <= self._reach and all(distance < other.distance(x, y) for other in self.others + strangers)


# -- A detector on the signer's part of the frame

_RESTART_AFTER, _RESTART_AFTER_AT_MOST = 3, 48


class RegionDetector(_Wrapper):
    """A detector that sees part of the frame only; its points are fractions of the whole frame all the same.

    A frame in which it finds somebody else's body holds nothing: a gap is filled or left out later, while points of two
    people in one track would be taken for true. A detector that stays with somebody else is restarted.
    """

    def __init__(self, start: Callable[[], Detector], region: Box, locator: BoxLocator | FaceLocator) -> None:
        super().__init__(start())
        self._start, self._region, self._locator = start, region, locator
        self._views: deque[tuple[BoxLocator | FaceView, int, int]] = deque()  # with width and height of the frame
        self._collected: deque[Floats] = deque()  # of a detector that has ended
        self._num_foreign, self._patience = 0, _RESTART_AFTER

    def submit(self, frame: Frame) -> None:
        """See `InFlight`."""
        view = self._locator.locate(frame)
        x0, y0, x1, y1 = self._region
        part = view.blank(np.array(frame.image[y0:y1, x0:x1]), (x0, y0))
        self._worker.submit(replace(frame, image=part, head=view.head((x0, y0))))
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
        self._replace(self._start)
        self._num_foreign, self._patience = 0, min(2 * self._patience, _RESTART_AFTER_AT_MOST)
