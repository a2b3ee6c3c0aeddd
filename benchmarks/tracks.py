"""How well boxes fit: extraction of a rendered corpus against its exact ground truth.

    python benchmarks/tracks.py [--size demo] [--set KEY=VALUE ...]

Prints, for each stream: the share of visible parts that have a box on them (in any state), the distance of the
centre from the true one as a share of the true box's side, the overlap (IoU) with the true box, how much a box jitters
against the truth from frame to frame, and for hands whether any sits on the other one. Settings are those of
scripts/extract_rois_v2.py.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from signstreams.cli import parse
from signstreams.demo.corpus import render_corpus
from signstreams.demo.video import true_boxes
from signstreams.extract.batch import extract_videos
from signstreams.extract.settings import BoxConfig, ExtractConfig
from signstreams.formats.arrays import read_tracks
from signstreams.formats.layout import CorpusLayout
from signstreams.streams import HAND_STREAMS, STREAMS, BoxState

ON_PART_IOU = 0.3
OTHER = dict(zip(HAND_STREAMS, HAND_STREAMS[::-1], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="demo", choices=["tiny", "demo", "bench"])
    parser.add_argument("--corpus", type=Path, help="a corpus that render_demo_corpus.py made, instead of rendering it")
    parser.add_argument("--set", nargs="+", action="extend", default=[], help="settings of the extraction")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.corpus or Path(folder) / "demo"
        if args.corpus is None:
            render_corpus(root, size=args.size, seed=0, jobs=2)
        videos = CorpusLayout(root).videos
        layout = CorpusLayout(Path(folder) / "extracted")
        words = ["--videos", str(videos), "--root", str(layout.root), "--jobs", "2"]
        config = parse(ExtractConfig, words + [word for setting in args.set for word in ("--set", setting)])
        extract_videos(config)
        report(CorpusLayout(root), layout, config.boxes)


def report(corpus: CorpusLayout, layout: CorpusLayout, config: BoxConfig) -> None:
    """Print the table."""
    rows: dict[str, list[np.ndarray]] = {stream: [] for stream in STREAMS}
    for path in sorted(corpus.videos.glob("*.mp4")):
        tracks = read_tracks(layout.tracks(path.stem))
        with np.load(corpus.ground_truth(path.stem), allow_pickle=False) as file:
            truth = {name: file[name] for name in file.files}
        true = true_boxes(truth, config.face_scale, config.hand_scale)
        for stream in STREAMS:
            track = tracks.streams[stream]
            visible = truth[f"{stream}_visible"] if stream in HAND_STREAMS else np.ones(len(track.state), bool)
            rows[stream].append(
                _compare(track.box, track.state, true[stream], true.get(OTHER.get(stream, "")), visible)
            )
    print("stream  frames  with a box on it  centre off: median / 95 %  IoU: median / 5 %    jitter  on the other hand")
    for stream, parts in rows.items():
        visible, on_it, off, iou, jitter, swapped = np.concatenate(parts, axis=1)
        use = (visible > 0) & ~np.isnan(off)
        print(
            f"{stream:7} {int(visible.sum()):6} {on_it[visible > 0].mean():13.2%} "
            f"{np.median(off[use]):18.3f} / {np.quantile(off[use], 0.95):.3f} "
            f"{np.median(iou[use]):15.3f} / {np.quantile(iou[use], 0.05):.3f} "
            f"{np.nanmedian(jitter[use]):10.4f} {int(swapped[use].sum()):10}"
        )


def _compare(
    box: np.ndarray, state: np.ndarray, true: np.ndarray, other: np.ndarray | None, visible: np.ndarray
) -> np.ndarray:
    """(6, T): visible, has a box on it, centre off, IoU, jitter, nearer to the other hand; NaN without a box."""
    has_box = state != BoxState.MISSING
    low, high = true[:, :2] - true[:, 2:] / 2, true[:, :2] + true[:, 2:] / 2
    shared = np.clip(np.minimum(box[:, 2:], high) - np.maximum(box[:, :2], low), 0, None).prod(axis=1)
    area = (box[:, 2:] - box[:, :2]).prod(axis=1)
    iou = np.where(has_box, shared / (area + true[:, 2] ** 2 - shared), np.nan)
    centre = (box[:, :2] + box[:, 2:]) / 2
    error = np.where(has_box[:, None], centre - true[:, :2], np.nan) / true[:, 2:]  # (T, 2), of the side
    jitter = np.full(len(state), np.nan)
    jitter[1:] = np.linalg.norm(np.diff(error, axis=0), axis=1)
    off = np.linalg.norm(error, axis=1)
    swapped = np.zeros(len(state))
    if other is not None:
        to_other = np.linalg.norm(centre - other[:, :2], axis=1) / true[:, 2]
        swapped = has_box & (to_other < 0.5 * off)
    return np.stack([visible, has_box & (np.nan_to_num(iou) > ON_PART_IOU), off, iou, jitter, swapped])


if __name__ == "__main__":
    main()
