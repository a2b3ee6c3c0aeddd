"""Render a whole demo corpus, one video per task, with its annotations; and a contact sheet of its signers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.demo.figure import Camera, Figure
from signstreams.demo.language import CTC_LABELS, HANDSHAPES, SIGNS, Sentence
from signstreams.demo.motion import video_motion
from signstreams.demo.plan import FPS, DemoPlan, PlannedClip, PlannedSign, PlannedVideo, plan
from signstreams.demo.settings import DemoConfig
from signstreams.demo.signers import SIGNERS, Signer
from signstreams.demo.video import backdrop, render_video, video_rng
from signstreams.files import remove_leftovers, write_bytes, write_text
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.language import plural, tr
from signstreams.processes import WorkerPool
from signstreams.progress import Progress

META_COLUMNS = ("id", "video", "text", "start", "end", "duration", "fps", "frame_count", "signer")
GLOSS_COLUMNS = ("video_id", "gloss", "ctc_labels")
UNSEEN_SIGNER_INDEX = "index_unseen_signer"


def run(config: DemoConfig) -> str:
    """Render what the config asks for; returns a line that says what was written."""
    layout = CorpusLayout(config.root)
    if config.contact_sheet is not None:
        write_contact_sheet(config.contact_sheet, config.seed)
        return f"{config.contact_sheet}: the signers and the handshapes"
    demo = plan(config.size, config.seed)
    clips = plural("%(num)s clip", "%(num)s clips", len(demo.clips()))
    videos = plural("%(num)s video", "%(num)s videos", len(demo.videos))
    if config.annotations_only:
        write_annotations(layout, demo)
        return f"{layout.meta}: {tr('%(clips)s of %(videos)s', clips=clips, videos=videos)}"
    if config.video is not None:
        video = demo.video(config.video)
        with Progress(video.num_frames, "frames", f"render {video.video_id}") as progress:
            render_video(layout, video, config.seed, progress)
        return f"{layout.videos / video.video_id}.mp4: {plural('%(num)s frame', '%(num)s frames', video.num_frames)}"
    render_corpus(config.root, size=config.size, seed=config.seed, jobs=config.jobs)
    frames = plural("%(num)s frame", "%(num)s frames", sum(video.num_frames for video in demo.videos))
    return f"{config.root}: {videos}, {clips}, {frames}"


def render_corpus(root: str | Path, *, size: str, seed: int, jobs: int = 1) -> None:
    """Write annotations, videos and ground truth below ``root``; ``jobs`` processes render side by side."""
    layout = CorpusLayout(Path(root))
    demo = plan(size, seed)
    remove_leftovers(layout.root)
    write_annotations(layout, demo)
    with Progress(sum(video.num_frames for video in demo.videos), "frames", "render") as progress:
        if jobs == 1:
            for video in demo.videos:
                render_video(layout, video, seed, progress)
            return
        with WorkerPool(jobs, partial(cv2.setNumThreads, 1)) as pool:
            tasks = [pool.submit(render_video, layout, video, seed) for video in demo.videos]
            for task, video in zip(tasks, demo.videos, strict=True):
                task.result()
                progress.advance(video.num_frames)


# -- Annotations, from the plan alone


def write_annotations(layout: CorpusLayout, plan: DemoPlan) -> None:
    """Write meta.csv (times in seconds), annotations/gloss.csv (keyed by clip id) and the index of each split."""
    rows = [
        (
            clip.clip_id,
            video.video_id,
            clip.sentence.text,
            _seconds(clip.start),
            _seconds(clip.end),
            _seconds(clip.end - clip.start),
            FPS,
            clip.end - clip.start,
            video.signer,
        )
        for video in plan.videos
        for clip in video.clips
    ]
    _write_table(layout.meta, META_COLUMNS, rows)
    glosses = []
    for clip in plan.clips():
        names = clip.sentence.glosses
        glosses.append((clip.clip_id, " ".join(names), " ".join(str(CTC_LABELS[name]) for name in names)))
    _write_table(layout.gloss, GLOSS_COLUMNS, glosses)
    for split in SPLITS:
        _write_ids(layout.index(split), plan.splits[split])
        if plan.unseen_signer_splits is not None:
            _write_ids(layout.root / UNSEEN_SIGNER_INDEX / f"{split}.csv", plan.unseen_signer_splits[split])


def _seconds(frames: int) -> str:
    return f"{frames / FPS:.2f}"


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    # No field of this corpus holds a semicolon, a quote or a line break, so nothing needs quoting.
    write_text(path, "".join(";".join(map(str, row)) + "\n" for row in (columns, *rows)))


def _write_ids(path: Path, clip_ids: Iterable[str]) -> None:
    write_text(path, "".join(f"{clip_id}\n" for clip_id in clip_ids))


# -- The contact sheet

_FRAME_PX = (320, 240)
_HAND_PX = 120
_START, _LENGTH = 10, 12
_SHOWN = ("CASA", "MAMÁ", "CAFÉ", "VER", "DÓNDE", "AGUA")


def write_contact_sheet(path: Path, seed: int) -> None:
    """Write a PNG for the README: a frame of each signer above, a crop of each handshape below."""
    frames = [
        cv2.resize(_frame(signer, gloss, seed)[0], _FRAME_PX, interpolation=cv2.INTER_AREA)
        for signer, gloss in zip(SIGNERS, _SHOWN, strict=True)
    ]
    gloss_of = {sign.handshape: gloss for gloss, sign in SIGNS.items()}
    hands = [
        _hand(SIGNERS[number % len(SIGNERS)], gloss_of[name], name, seed)
        for number, name in enumerate(name for name in HANDSHAPES if name in gloss_of)
    ]
    per_row = len(hands) // 2
    width = 3 * _FRAME_PX[0]
    rows = [np.hstack(frames[:3]), np.hstack(frames[3:])]
    for first in range(0, len(hands), per_row):
        row = np.hstack(hands[first : first + per_row])
        rows.append(cv2.resize(row, (width, round(row.shape[0] * width / row.shape[1])), interpolation=cv2.INTER_AREA))
    sheet = np.vstack(rows) // 6 * 6  # fewer shades keep the file small
    done, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    write_bytes(path, data.tobytes())


def _frame(signer: Signer, gloss: str, seed: int) -> tuple[Pixels, Floats]:
    """Image in the middle of a sign, and the (21, 2) px of the hand that signs."""
    sign = PlannedSign(gloss, _START, _START + _LENGTH)
    clip = PlannedClip("sheet", Sentence((gloss,), gloss), 0, sign.end + _START, (sign,))
    rng = video_rng(seed, f"contact sheet {signer.name} {gloss}")
    motion = video_motion(PlannedVideo("sheet", signer.name, (clip,), clip.end), signer, rng)
    figure = Figure(signer, Camera.before(signer, rng), backdrop(signer, rng))
    image, truth = figure.draw(motion, _START + _LENGTH // 2)
    return image, truth.limbs[0 if signer.left_handed else 1].hand[:, :2]


def _hand(signer: Signer, gloss: str, name: str, seed: int) -> Pixels:
    image, points = _frame(signer, gloss, seed)
    middle, half = (points.min(0) + points.max(0)) / 2, np.ptp(points, axis=0).max() * 0.66
    x0, y0 = np.round(middle - half).astype(int)
    side = int(2 * half)
    padded = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REPLICATE)
    crop = padded[y0 + side : y0 + 2 * side, x0 + side : x0 + 2 * side]
    crop = cv2.resize(crop, (_HAND_PX, _HAND_PX), interpolation=cv2.INTER_AREA)
    cv2.putText(crop, name, (5, _HAND_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (250, 250, 250), 1, cv2.LINE_AA)
    return crop
