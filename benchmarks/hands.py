"""How well hands are found: two results of extraction, such as Holistic's and our tracker's, on the same videos.

    python benchmarks/hands.py extract FOLDER [FLAGS of scripts/extract_rois_v2.py ...]
    python benchmarks/hands.py compare BEFORE AFTER [--only PART ...]
    python benchmarks/hands.py sheets BEFORE AFTER FOLDER [--every N]

``extract`` writes one corpus per set of videos below FOLDER: the clips and signs of ../shared/data, and eight videos of
the demo corpus with their ground truth. ``compare`` prints the figures of two such folders, ``sheets`` draws both side
by side for people to look at. "Visible" is a hand with a box, in whatever state; points that were interpolated over a
gap (confidence below .5) count as points, and their share is printed.

    found     share of the visible hands that have 21 points
    marks     share of the hands of hand_marks.csv that have points, of those that are not to be seen and of those that
              plainly are although Holistic has no points
    kept      where BEFORE found a visible hand: share that AFTER has, and how far the wrists are apart
    shared    frames in which both sides have the points of one hand
    outside   hands of which most points are beyond the picture
    rendered  error of the 21 points against ground truth, and points of hands that are hidden or outside

hand_marks.csv lists hands of the clips and signs: video, set, time, frame (as extraction counts them), the person's own
side, and whether the hand is visible. 231 are not (0), in 81 videos: in most the arm leaves the picture, with the wrist
at its edge or beyond; some 30, nearly all in two videos (Jsl_age, Jsl_tell_say), are behind the other hand or a table,
or in a dark sleeve. 106 are plainly visible (1), in 70 videos: whole in the picture, many blurred by motion, and
Holistic has no points there. Candidates were drawn at random from four kinds of frame (no box; a box without points;
beside a gap; the other hand near), plus 38 from videos in which a hand is hidden throughout. A language model marked
them once, before it had seen results of the tracker; no person has checked them. Partly visible hands are in neither
group. Holistic has no box in 230 of the 231 frames, so its own .9 % is low by selection. Few marked hands are hidden
within the picture: also look at the sheets ``added`` of ``sheets``.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from signstreams.array_types import Flags, Floats, Pixels
from signstreams.extract.preview import STATE_COLOURS, draw_box, draw_skeleton
from signstreams.extract.video import VideoReader
from signstreams.formats.arrays import read_keypoints, read_tracks
from signstreams.formats.landmarks import FACE, MISSING, REGIONS, pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.skeleton import LEFT, RIGHT
from signstreams.formats.video_metadata import read_metadata
from signstreams.streams import BY_NAME, HAND_STREAMS, BoxState
from signstreams.tracker.hands import hand_size

PROJECT = Path(__file__).resolve().parents[1]
DATA = PROJECT.parent / "shared" / "data"
SETS = {"clips": DATA / "clips", "signs_hksl_jsl": DATA / "signs" / "hksl_jsl", "signs_ksl": DATA / "signs" / "ksl"}
"""Folder of results to that of the videos."""
TARGETS = {"clips": 0.93, "signs_hksl_jsl": 0.985, "signs_ksl": 0.97}
RENDERED = "demo"
RENDERED_VIDEOS = [f"demo_{number:03}" for number in (0, 1, 2, 3, 4, 5, 6, 8)]
MARKS = PROJECT / "benchmarks" / "hand_marks.csv"
INTERPOLATED_BELOW = 0.5  # confidence
NEAR = 0.1  # of a hand's size: wrists of the same hand
SAME_HAND = 0.2
"""Mean distance of like points of both sides over the hand's size, below which they are those of one hand: two hands
that really lie on each other are mirror images."""


class Hands(NamedTuple):
    """The hands of one video; axis 0 is that of `HAND_STREAMS`."""

    points: Floats  # (2, T, 21, 2) px; meaningless where the confidence is 0
    is_outside: Flags  # (2, T), whether most of the points are beyond the picture
    confidence: Floats  # (2, T), 0 without points
    has_box: Flags  # (2, T)
    times_s: Floats  # (T,)

    @property
    def is_found(self) -> Flags:
        """(2, T), whether a hand has its 21 points."""
        return self.confidence > 0


@cache
def read_hands(root: Path, video_id: str) -> Hands:
    """What an extraction into ``root`` found in a video."""
    layout = CorpusLayout(root)
    tracks, metadata = read_tracks(layout.tracks(video_id)), read_metadata(layout.metadata(video_id))
    keypoints = read_keypoints(layout.keypoints(video_id))
    hands = np.stack([keypoints[:, REGIONS[stream]] for stream in HAND_STREAMS])  # (2, T, 21, 3)
    return Hands(
        hands[..., :2] * (metadata.width_px, metadata.height_px),
        ((hands[..., :2] < 0) | (hands[..., :2] >= 1)).any(axis=-1).mean(axis=-1) > 0.5,
        hands[..., 2].min(axis=-1),
        np.stack([tracks.streams[stream].state != BoxState.MISSING for stream in HAND_STREAMS]),
        tracks.times_s,
    )


@cache
def common(before: Path, after: Path, name: str) -> list[str]:
    """Ids of the videos of a set of which both have the same frames; says how many do not."""
    ids = [path.stem for path in sorted((before / name / "processed" / "tracks").glob("*.npz"))]
    known = [video_id for video_id in ids if CorpusLayout(after / name).tracks(video_id).is_file()]
    same = [
        video_id
        for video_id in known
        if np.array_equal(read_hands(before / name, video_id).times_s, read_hands(after / name, video_id).times_s)
    ]
    if len(same) < len(ids):
        print(
            f"{name}: {len(same)} of {len(ids)} videos compared; {len(ids) - len(known)} are not in {after},"
            f" {len(known) - len(same)} have other frames there",
            file=sys.stderr,
        )
    return same


def pairs(before: Path, after: Path, name: str) -> Iterator[tuple[Hands, Hands]]:
    """Both results of the `common` videos of a set."""
    for video_id in common(before, after, name):
        yield read_hands(before / name, video_id), read_hands(after / name, video_id)


def sets_of(before: Path, after: Path) -> list[str]:
    """Sets of real videos that both folders have."""
    return [name for name in SETS if all((folder / name / "processed").is_dir() for folder in (before, after))]


# -- The figures


def found(before: Path, after: Path) -> None:
    """Hands with points among the visible ones."""
    print("found: hands with points of the visible ones")
    for name in sets_of(before, after):
        counts = np.zeros((2, 3), int)  # before, after; visible, with points, of which interpolated
        of_the_same = num_visible = 0
        for both in pairs(before, after, name):
            for row, hands in enumerate(both):
                has = hands.has_box & hands.is_found
                interpolated = has & (hands.confidence < INTERPOLATED_BELOW)
                counts[row] += hands.has_box.sum(), has.sum(), interpolated.sum()
            num_visible += int(both[0].has_box.sum())
            of_the_same += int((both[0].has_box & both[1].is_found).sum())
        told = [
            f"{has} of {visible} ({share(has, visible)}, interpolated {share(filled, visible)})"
            for visible, has, filled in counts
        ]
        print(
            f"  {name:15} before {told[0]}, after {told[1]}; of those visible before {share(of_the_same, num_visible)};"
            f" target {TARGETS[name]:.1%}"
        )


def marks(before: Path, after: Path) -> None:
    """Points on the marked hands."""
    counts = {(name, visible): np.zeros(3, int) for name in [*sets_of(before, after), "all"] for visible in (0, 1)}
    false: list[str] = []
    for mark in read_marks(before, after):
        has = [mark.has_points(folder) for folder in (before, after)]
        for name in (mark.name, "all"):
            counts[name, int(mark.is_visible)] += 1, *has
        if has[1] and not mark.is_visible:
            false.append(f"{mark.name}/{mark.video} frame {mark.frame} {BY_NAME[mark.stream].side}")
    print("marks: with points, before and after")
    for (name, visible), (num, first, second) in counts.items():
        if num:
            kind = "plainly visible, not found by Holistic" if visible else "not visible"
            target = "; target at most 2 %" if (name, visible) == ("all", 0) else ""
            print(f"  {name:15} {num:4} {kind}: {first} ({share(first, num)}), {second} ({share(second, num)}){target}")
    for line in false:
        print(f"  not visible, yet with points after: {line}")


class Mark(NamedTuple):
    """One line of the marks."""

    video: str
    name: str  # of the set
    frame: int
    stream: str
    is_visible: bool

    def has_points(self, folder: Path) -> bool:
        """Whether an extraction into ``folder`` has points there."""
        hands = read_hands(folder / self.name, self.video)
        return bool(hands.is_found[HAND_STREAMS.index(self.stream), self.frame])


def read_marks(before: Path, after: Path) -> list[Mark]:
    """The hands that were marked by eye, of the `common` videos."""
    of_side = {str(BY_NAME[stream].side): stream for stream in HAND_STREAMS}
    known = {(name, video_id) for name in sets_of(before, after) for video_id in common(before, after, name)}
    with MARKS.open(newline="") as file:
        return [
            Mark(row["video"], row["set"], int(row["frame"]), of_side[row["side"]], row["visible"] == "1")
            for row in csv.DictReader(file)
            if (row["set"], row["video"]) in known
        ]


def kept(before: Path, after: Path) -> None:
    """Hands of BEFORE in AFTER."""
    print("kept: visible hands found before that are found after, and those of them with the wrist in place")
    for name in sets_of(before, after):
        has, off = [], []
        for first, second in pairs(before, after, name):
            use = first.is_found & first.has_box
            has.append(second.is_found[use])
            both = use & second.is_found
            apart = np.linalg.norm(first.points[both][:, 0] - second.points[both][:, 0], axis=-1)
            off.append(apart / hand_size(first.points[both]))
        had, off_by = np.concatenate(has), np.concatenate(off)
        print(
            f"  {name:15} {had.sum()} of {had.size} ({share(had.sum(), had.size)}; target 99 %), wrists within"
            f" {NEAR} of the hand's size {share((off_by <= NEAR).sum(), off_by.size)} (target 95 %), {spread(off_by)}"
        )


def shared(before: Path, after: Path) -> None:
    """Frames in which one hand was given to both sides."""
    print("shared: frames in which both sides have the points of one hand, of those in which both have points")
    for name in sets_of(before, after):
        counts = np.zeros((2, 2), int)  # before, after; both sides with points, of one hand
        for both in pairs(before, after, name):
            for row, hands in enumerate(both):
                left, right = hands.points[:, hands.is_found.all(axis=0)]  # (N, 21, 2) each
                apart = np.linalg.norm(left - right, axis=-1).mean(axis=-1)  # (N,) px
                is_same = apart < SAME_HAND * np.maximum(hand_size(left), hand_size(right))
                counts[row] += len(left), is_same.sum()
        told = [f"{same} of {num} ({share(same, num)})" for num, same in counts]
        print(f"  {name:15} before {told[0]}, after {told[1]}")


def outside(before: Path, after: Path) -> None:
    """Hands most of whose points are beyond the picture: guesses, even where a part of the hand is visible."""
    print("outside: hands with most points beyond the picture, of those with points")
    for name in sets_of(before, after):
        counts = np.zeros((2, 2), int)  # before, after; with points, of which mostly outside
        for both in pairs(before, after, name):
            for row, hands in enumerate(both):
                counts[row] += hands.is_found.sum(), (hands.is_found & hands.is_outside).sum()
        told = [f"{beyond} of {num} ({share(beyond, num)})" for num, beyond in counts]
        print(f"  {name:15} before {told[0]}, after {told[1]}")


def rendered(before: Path, after: Path) -> None:
    """Points against the ground truth of rendered videos."""
    truths = sorted((before / RENDERED / "ground_truth").glob("*.npz"))
    if not truths or not (after / RENDERED / "processed").is_dir():
        return
    rows: list[list[Floats]] = [[], []]  # before, after: (N, 21) error of each point, NaN without points
    crossed: list[list[Flags]] = [[], []]  # (N,) whether the points lie on the other hand
    clear, outside = [], []  # (N,)
    for path in truths:
        with np.load(path, allow_pickle=False) as file:
            true = np.stack([file[stream] for stream in HAND_STREAMS]).astype(float)  # (2, T, 21, 2) px
            clear.append(np.stack([file[f"{stream}_visible"] for stream in HAND_STREAMS]).ravel())
            picture_px = (int(file["width"]), int(file["height"]))
        outside.append(((true < 0) | (true >= picture_px)).any(axis=-1).all(axis=-1).ravel())
        for row, folder in enumerate((before, after)):
            hands = read_hands(folder / RENDERED, path.stem)
            own, other = (
                np.linalg.norm(hands.points - hand, axis=-1) / hand_size(true)[..., None] for hand in (true, true[::-1])
            )  # (2, T, 21) each
            own[~hands.is_found] = np.nan
            rows[row].append(own.reshape(-1, own.shape[-1]))
            crossed[row].append((other.mean(axis=-1) < 0.5 * own.mean(axis=-1)).ravel())
    is_clear, is_outside = np.concatenate(clear), np.concatenate(outside)
    is_partly = ~is_clear & ~is_outside
    error = [np.concatenate(parts) for parts in rows]
    has = [~np.isnan(values[:, 0]) for values in error]
    print(f"rendered: {len(truths)} videos, error of the 21 points as a share of the hand's size")
    for who, found_hand, off, on_other in zip(("before", "after"), has, error, crossed, strict=True):
        told = [
            f"{(found_hand & kind).sum()} of {kind.sum()} {name}"
            for name, kind in (("visible", is_clear), ("partly hidden or outside", is_partly), ("outside", is_outside))
        ]
        print(
            f"  {who:7} {', '.join(told)}; visible: {spread(off[found_hand & is_clear])};"
            f" on the other hand: {np.concatenate(on_other).sum()}"
        )
    both = is_clear & has[0] & has[1]
    print(f"  visible, both found, {both.sum()}: before {spread(error[0][both])}, after {spread(error[1][both])}")
    near = [share((off[both][:, 0] <= NEAR).sum(), both.sum()) for off in error]
    print(f"  of these, wrists within {NEAR} of the hand's size of the true ones: before {near[0]}, after {near[1]}")
    alone = is_clear & has[1] & ~has[0]
    print(f"  visible, only found after, {alone.sum()}: {spread(error[1][alone])}")


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "found": found,
    "marks": marks,
    "kept": kept,
    "shared": shared,
    "outside": outside,
    "rendered": rendered,
}


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def spread(values: Floats) -> str:
    return f"median {np.median(values):.3f}, 95 % {np.quantile(values, 0.95):.3f}" if values.size else "none"


# -- Pictures

TILE_PX, MARK_PX, COLUMNS, ROWS = 200, 200, 3, 5
_SIDE_COLOURS = dict(zip(HAND_STREAMS, (LEFT, RIGHT), strict=True))
NUM_ADDED = 120
_MARK_SIDE, _REACH = 2.2, 1.5  # of the shoulders' distance: side of a marked hand's picture, signer to either side


def sheets(before: Path, after: Path, folder: Path, every: int) -> None:
    """PNGs of the clips, every n-th frame, before on the left and after on the right, interpolated hands framed; of
    marked hands that are not visible but have points after; and of some hands, by chance, that only AFTER has: the
    marks hardly hold hands that are hidden within the picture, so look here for false ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for video_id in common(before, after, "clips"):
        known = [read_keypoints(CorpusLayout(root / "clips").keypoints(video_id)) for root in (before, after)]
        reach = _reach(known[0])
        tiles = []
        for index, image in _frames(_video("clips", video_id)):
            if index % every == 0:
                tiles.append(np.hstack([_drawn(image, keypoints[index], reach) for keypoints in known]))
                _label(tiles[-1], str(index))
        _write_pages(tiles, folder / video_id)
    false = [mark for mark in read_marks(before, after) if not mark.is_visible and mark.has_points(after)]
    for stem, hands in (("marks", false), ("added", _added(before, after))):
        tiles = []
        for mark in hands:
            image = next(image for index, image in _frames(_video(mark.name, mark.video)) if index == mark.frame)
            layouts = [CorpusLayout(root / mark.name) for root in (before, after)]
            known = [read_keypoints(layout.keypoints(mark.video))[mark.frame] for layout in layouts]
            tiles.append(np.hstack([_around_wrist(image, keypoints, mark.stream) for keypoints in known]))
            _label(tiles[-1], f"{mark.video} {mark.frame} {BY_NAME[mark.stream].side}")
        _write_pages(tiles, folder / stem)
    print(f"{folder}: {len(list(folder.glob('*.png')))} pictures")


def _added(before: Path, after: Path) -> list[Mark]:
    """`NUM_ADDED` hands, by chance but always the same of the same results, that AFTER has and BEFORE has not."""
    added = [
        Mark(video_id, name, int(frame), HAND_STREAMS[side], True)
        for name in sets_of(before, after)
        for video_id in common(before, after, name)
        for side, frame in np.argwhere(
            read_hands(after / name, video_id).is_found & ~read_hands(before / name, video_id).is_found
        )
    ]
    chosen = np.random.default_rng(0).permutation(len(added))[:NUM_ADDED]
    return [added[row] for row in sorted(chosen)]


def _video(name: str, video_id: str) -> Path:
    return next(path for path in sorted(SETS[name].iterdir()) if path.stem == video_id)


def _frames(path: Path) -> Iterator[tuple[int, Pixels]]:
    with VideoReader(path) as reader:
        for index, frame in enumerate(reader.frames()):
            yield index, frame.image


def _reach(keypoints: Floats) -> tuple[float, float]:
    """Part of the frame's width, from and to, in which the signer of (T, 543, 3) keypoints moves."""
    left, right = (keypoints[:, pose_index(f"{side}_shoulder"), :2] for side in ("left", "right"))
    is_seen = keypoints[:, 0, 2] > 0
    middle = float(np.median((left + right)[is_seen, 0] / 2)) if is_seen.any() else 0.5
    width = float(np.median(np.abs(left - right)[is_seen, 0])) if is_seen.any() else 1.0
    return max(0.0, middle - _REACH * width), min(1.0, middle + _REACH * width)


def _drawn(image: Pixels, keypoints: Floats, reach: tuple[float, float]) -> Pixels:
    """(h, TILE_PX, 3) the signer's part of the frame with body and hands."""
    shown = keypoints.copy()
    shown[FACE] = MISSING
    shown[:, 0] = (shown[:, 0] - reach[0]) / (reach[1] - reach[0])
    first, last = (round(share * image.shape[1]) for share in reach)
    scale = TILE_PX / (last - first)
    size = (TILE_PX, round(image.shape[0] * scale))
    tile = cv2.resize(image[:, first:last], size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    draw_skeleton(tile, shown)
    for stream in HAND_STREAMS:
        hand = shown[REGIONS[stream]]
        if 0 < hand[:, 2].min() < INTERPOLATED_BELOW:
            points = hand[:, :2] * size
            draw_box(tile, [*points.min(axis=0), *points.max(axis=0)], STATE_COLOURS[BoxState.FILLED], 1)
    return tile


def _around_wrist(image: Pixels, keypoints: Floats, stream: str) -> Pixels:
    """(MARK_PX, MARK_PX, 3) part of the frame around the wrist of a side, with the forearm and the hand's points."""
    size = np.array(image.shape[1::-1])
    body = keypoints[: REGIONS["face"].start, :2] * size  # (33, 2) px
    side = BY_NAME[stream].side
    elbow, wrist = (body[pose_index(f"{side}_{joint}")] for joint in ("elbow", "wrist"))
    width = np.linalg.norm(body[pose_index("left_shoulder")] - body[pose_index("right_shoulder")])
    scale = MARK_PX / max(1.0, _MARK_SIDE * float(width))
    affine = np.column_stack([np.eye(2) * scale, MARK_PX / 2 - scale * np.clip(wrist, 0, size)])
    tile = cv2.warpAffine(image, affine, (MARK_PX, MARK_PX), flags=cv2.INTER_AREA, borderValue=(90, 90, 160))

    def place(point: Floats) -> tuple[int, int]:
        x, y = np.clip(affine[:, :2] @ point + affine[:, 2], -(2**14), 2**14)
        return round(float(x)), round(float(y))

    cv2.line(tile, place(elbow), place(wrist), _SIDE_COLOURS[stream], 1, cv2.LINE_AA)
    for point in keypoints[REGIONS[stream]]:
        if point[2] > 0:
            cv2.circle(tile, place(point[:2] * size), 1, (255, 255, 0), -1)
    return tile


def _label(tile: Pixels, text: str) -> None:
    cv2.rectangle(tile, (0, 0), (8 * len(text), 13), (0, 0, 0), -1)
    cv2.putText(tile, text, (2, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def _write_pages(tiles: list[Pixels], stem: Path) -> None:
    """Tiles of one size, 3 side by side, on pages ``<stem>_<number>.png``."""
    per_page = COLUMNS * ROWS
    for start in range(0, len(tiles), per_page):
        page = tiles[start : start + per_page]
        page += [np.zeros_like(page[0])] * (-len(page) % COLUMNS)
        rows = [np.hstack(page[first : first + COLUMNS]) for first in range(0, len(page), COLUMNS)]
        cv2.imwrite(f"{stem}_{start // per_page:02}.png", np.vstack(rows)[..., ::-1])


# -- Extraction of all sets


def extract(folder: Path, flags: list[str]) -> None:
    """Extract every set into a corpus below ``folder``, one after the other."""
    corpus = folder / RENDERED
    for video in RENDERED_VIDEOS:
        if not CorpusLayout(corpus).ground_truth(video).is_file():
            _run("render_demo_corpus.py", "--root", corpus, "--video", video)
    for name, videos in {**SETS, RENDERED: CorpusLayout(corpus).videos}.items():
        if videos.is_dir():
            _run("extract_rois_v2.py", "--videos", videos, "--root", folder / name, *flags)
        else:
            print(f"{videos}: no such folder, left out", file=sys.stderr)


def _run(script: str, *words: str | Path) -> None:
    subprocess.run([sys.executable, PROJECT / "scripts" / script, *words], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("extract", help="extract all sets into a folder")
    one.add_argument("folder", type=Path)
    for name in ("compare", "sheets"):
        both = commands.add_parser(name, help="figures of two results" if name == "compare" else "pictures of both")
        both.add_argument("before", type=Path)
        both.add_argument("after", type=Path)
        if name == "compare":
            both.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
        else:
            both.add_argument("folder", type=Path)
            both.add_argument("--every", type=int, default=2, help="draw every n-th frame")
    args, flags = parser.parse_known_args()
    if args.command == "extract":
        extract(args.folder, flags)
        return
    if flags:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    if args.command == "sheets":
        sheets(args.before, args.after, args.folder, args.every)
        return
    for part in args.only:
        PARTS[part](args.before, args.after)


if __name__ == "__main__":
    main()
