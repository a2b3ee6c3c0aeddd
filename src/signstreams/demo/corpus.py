"""Renders a whole demo corpus, one video a task, and its annotations."""

from __future__ import annotations

from pathlib import Path

from signstreams.config.demo import DemoConfig
from signstreams.demo.annotations import write_annotations
from signstreams.demo.plan import plan
from signstreams.demo.video import render_video
from signstreams.formats.layout import CorpusLayout
from signstreams.progress import Progress
from signstreams.workers import WorkerPool


def run(config: DemoConfig) -> str:
    """Do what the script was asked for, and say in a line what there is now.

    Raises:
        UserError: When the video is not in the corpus.
    """
    layout = CorpusLayout(config.root)
    if config.contact_sheet is not None:
        from signstreams.demo.contact_sheet import write_contact_sheet

        write_contact_sheet(config.contact_sheet, config.seed)
        return f"{config.contact_sheet}: the signers and the handshapes"
    demo = plan(config.size, config.seed)
    if config.annotations_only:
        write_annotations(layout, demo)
        return f"{layout.meta}: {len(demo.clips())} clips of {len(demo.videos)} videos"
    if config.video is not None:
        video = demo.video(config.video)
        with Progress(video.num_frames, "frames", f"render {video.video_id}") as progress:
            render_video(layout, video, config.seed, progress)
        return f"{layout.videos / video.video_id}.mp4: {video.num_frames} frames"
    render_corpus(config.root, size=config.size, seed=config.seed, jobs=config.jobs)
    num_frames = sum(video.num_frames for video in demo.videos)
    return f"{config.root}: {len(demo.videos)} videos, {len(demo.clips())} clips, {num_frames:,} frames"


def render_corpus(root: str | Path, *, size: str, seed: int, jobs: int = 1) -> None:
    """Write annotations, videos and ground truth below ``root``; ``jobs`` processes render side by side.

    Raises:
        UserError: When there is no such size, or a process was killed.
    """
    layout = CorpusLayout(Path(root))
    demo = plan(size, seed)
    write_annotations(layout, demo)
    with Progress(sum(video.num_frames for video in demo.videos), "frames", "render") as progress:
        if jobs == 1:
            for video in demo.videos:
                render_video(layout, video, seed, progress)
            return
        with WorkerPool(jobs, _use_one_thread) as pool:
            tasks = [pool.submit(render_video, layout, video, seed) for video in demo.videos]
            for task, video in zip(tasks, demo.videos, strict=True):
                task.result()
                progress.advance(video.num_frames)


def _use_one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
