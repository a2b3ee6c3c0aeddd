"""Which of several people signs: how much each one's hands move at moments spread over the whole video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.extract.people import HEAD_UNITS, MIN_RELATIVE_SIZE, Face, FaceFinder, Person, link
from signstreams.extract.region import Box, blank_others, signing_box
from signstreams.extract.solutions import QuietStderr, solution_class
from signstreams.extract.video import UnreadableVideoError, VideoReader
from signstreams.formats.landmarks import pose_index

RUN_LENGTH = 4
"""Frames of a moment: one place and three steps of the hands."""
RUN_HZ = 8.0
"""Their rate. Slower than video: over 1/8 s a signing hand moves far more than the body model trembles."""
RUN_S = RUN_LENGTH / RUN_HZ
MOMENT_EVERY_S, MIN_MOMENTS, MAX_MOMENTS = 2.0, 6, 24
MIN_PRESENCE = 0.2
"""Somebody seen in a smaller share of the moments is a passer-by, or no person at all."""
MAX_SPEED = 20.0
"""Head units a second; beyond it the body model has jumped."""
_MIN_VISIBILITY = 0.5
_NOSE, _LEFT, _RIGHT = pose_index("nose"), pose_index("left_shoulder"), pose_index("right_shoulder")
_WRISTS = [pose_index("left_wrist"), pose_index("right_wrist")]


Spans = Sequence[tuple[float, float]]
Run = list[tuple[float, Pixels]]
"""Time and image of frames that follow each other."""
_Moment = tuple[float, list[Face], list[float]]
"""Time, faces, and of each the speed of the hands."""


class Candidate(NamedTuple):
    """Somebody who may be the signer.

    Attributes:
        person: With the sightings at the moments looked at.
        motion: Mean speed of the hands against the shoulders over all moments (0 where absent), head units a second.
    """

    person: Person
    motion: float


def audition(path: Path, spans_s: Spans | None = None, frames_fps: float = 25.0) -> list[Candidate]:
    """The people seen side by side in a video, from left to right; none or one when there are no several.

    Args:
        path: The video.
        spans_s: Look only there (rising, apart); None for everywhere.
        frames_fps: Rate of the images where the video is a folder, Hz.
    """
    sightings: list[_Moment] = []
    with FaceFinder() as finder, _BodyFinder() as bodies, suppress(UnreadableVideoError):  # the extraction will say so
        for run in _runs(path, spans_s, frames_fps):
            faces = [sorted(finder.find(image), key=lambda face: face.x) for _, image in run]
            sightings.append((run[0][0], faces[0], [bodies.hand_speed(run, faces, k) for k in range(len(faces[0]))]))
    return _candidates(sightings)


def choose(candidates: Sequence[Candidate], width_px: int) -> tuple[int, bool]:
    """Number of the signer, and whether hand motion decided it.

    Hands that move less than a fifth of a head unit a second do not sign, and a lead of less than a tenth is chance:
    then it is the larger one, and of equally large ones the more central one.
    """
    motions = [candidate.motion for candidate in candidates]
    first, second = sorted(motions, reverse=True)[:2]
    if first >= 0.2 and second < 0.9 * first:
        return motions.index(first), True
    places = [candidate.person.place for candidate in candidates]
    prominence = [size * (1 - 0.5 * abs(x / width_px - 0.5)) for x, _, size in places]
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
    if len(set(times)) == len(times):  # one after the other, as in a film that was cut together: nobody to tell apart
        return [Candidate(person, 0.0) for person in steady[:1]]
    return [Candidate(person, sum(speed_of[id(face)] for face in person.faces) / len(sightings)) for person in steady]


class _BodyFinder:
    """MediaPipe Pose in tracking mode, one graph for each place in the row of people.

    Without tracking, folded hands tremble by 1.4 head units a second; with it by 0.7 (the man in lsat_two_people.gif).
    """

    def __init__(self) -> None:
        self._quiet = QuietStderr()
        self._graphs: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._quiet:
            for graph in self._graphs.values():
                graph.close()
        self._quiet.close()

    def hand_speed(self, run: Run, faces: Sequence[list[Face]], index: int) -> float:
        """Mean over both hands of the speed of a person's wrists against the shoulders, head units a second.

        A wrist that is out of sight stands still: what the body model guesses there trembles.

        Args:
            run: The frames.
            faces: Those found in each of them.
            index: The person's face in the first frame.
        """
        first = face = faces[0][index]
        height_px, width_px = run[0][1].shape[:2]
        # One box for all: from a box that follows the face, the body model would tremble with it.
        box = signing_box(first, [other for other in faces[0] if other is not first], width_px, height_px)
        speeds, before, before_s = [], None, 0.0
        for (time_s, image), seen in zip(run, faces, strict=True):
            face = min(seen, key=lambda other: face.distance(other.x, other.y), default=face)
            wrists = self._wrists(image, box, face, [other for other in seen if other is not face], index)
            if before is not None and wrists is not None:
                both = (wrists[:, 2] > _MIN_VISIBILITY) & (before[:, 2] > _MIN_VISIBILITY)
                step = np.linalg.norm(wrists[:, :2] - before[:, :2], axis=-1) * both / (HEAD_UNITS * first.size_px)
                speeds.append(min(MAX_SPEED, float(step.mean()) / (time_s - before_s)))
            before, before_s = wrists, time_s
        return float(np.median(speeds)) if speeds else 0.0

    def _wrists(self, image: Pixels, box: Box, face: Face, others: Sequence[Face], index: int) -> Floats | None:
        """(2, 3) x, y from the middle of the shoulders, px, and visibility; None when the person is not found."""
        x0, y0, x1, y1 = box
        part = blank_others(np.array(image[y0:y1, x0:x1]), (x0, y0), face, others)
        with self._quiet:
            if index not in self._graphs:
                self._graphs[index] = solution_class("pose", "Pose")(model_complexity=1, smooth_landmarks=False)
            found = self._graphs[index].process(part).pose_landmarks
        if found is None:
            return None
        points = np.array([(p.x * (x1 - x0), p.y * (y1 - y0), p.visibility) for p in found.landmark])
        if face.distance(points[_NOSE, 0] + x0, points[_NOSE, 1] + y0) > 1:
            with self._quiet:
                self._graphs.pop(index).close()  # it follows somebody else
            return None
        wrists = points[_WRISTS]
        wrists[:, :2] -= (points[_LEFT, :2] + points[_RIGHT, :2]) / 2
        return wrists


def _runs(path: Path, spans_s: Spans | None, frames_fps: float) -> Iterator[Run]:
    """Short runs of frames at moments spread evenly over the video, or over the spans."""
    if spans_s is None:
        with VideoReader(path, frames_fps=frames_fps) as reader:
            duration_s = reader.duration_s
            if not duration_s:  # not declared, as in recordings of browsers, or declared as nothing
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
    """Starts of the runs, s: evenly over the spans laid end to end, not closer than runs are long."""
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
