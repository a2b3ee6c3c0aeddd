"""Sequence pretraining: translation from few texts with it and without it, on the ``bench`` demo corpus.

All 300 clips are footage; a tenth of those of train has its text. The points are the true ones of the figures (hands,
arms, nose, eyes) with noise, computed without a picture and an extraction. The encoder is pretrained once, on all
videos but those of test (and val, which it is scored on); then for each seed a training starts from it, and one from
scratch, on the same clips, with all else equal: chosen by val, scored on test with five beams. Trainings see keypoints
alone (pose and MSKA).

python benchmarks/sequence.py FOLDER                     # what FOLDER holds already is kept
python benchmarks/sequence.py FOLDER --seeds 1 --set optim.lr=1e-3 prediction.span_steps=3
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from signstreams.demo.corpus import write_annotations
from signstreams.demo.figure import LEFT, RIGHT, Camera, limb
from signstreams.demo.head import MIDDLE
from signstreams.demo.motion import video_motion
from signstreams.demo.plan import FPS, HEIGHT_PX, WIDTH_PX, PlannedVideo, plan
from signstreams.demo.signers import signer_named
from signstreams.demo.video import video_rng
from signstreams.extract.signing_space import signing_space
from signstreams.formats.arrays import StreamTrack, Tracks, write_keypoints, write_pose, write_tracks
from signstreams.formats.landmarks import HAND_L, HAND_R, MISSING, NUM_KEYPOINTS, NUM_POSE, pose_index
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import DetectorInfo, SignerInfo, VideoMetadata, write_metadata
from signstreams.streams import STREAMS, BoxState

PROJECT = Path(__file__).parents[1]
RECIPE = PROJECT / "config" / "integrate" / "demo.yml"
SEED, NOISE_PX = 0, 1.5
TEXT_SHARE = 10  # one clip in so many of train has its text
EYES = {"nose": (0.0, 0.0), "left_eye": (0.2, -0.15), "right_eye": (-0.2, -0.15)}  # from the middle of the head, units
ARMS = ("scratch", "sequence")
SCORES = (("BLEU-4", "bleu_4"), ("chrF", "chrf"), ("gloss WER", "wer"), ("loss", "loss"))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="corpus and runs")
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--epochs", type=int, default=40, help="of sequence pretraining")
    words.add_argument("--train-epochs", type=int, default=40, help="of the training, of four steps each")
    words.add_argument(
        "--set", nargs="*", default=["optim.lr=1e-3"], metavar="KEY=VALUE", help="settings of sequence pretraining"
    )
    args = words.parse_args()
    folder = args.folder.absolute()
    layout = CorpusLayout(folder / "corpus")
    if not layout.meta.is_file():
        make_corpus(layout)
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    sequence = pretrain(folder, args.epochs, args.set)
    for seed in range(args.seeds):
        for arm in ARMS:
            first = ["--sequence-checkpoint", str(sequence)] if arm == "sequence" else []
            found[arm].append(train(folder, f"{arm}_{seed}", seed, args.train_epochs, first))
            print(f"{arm} seed {seed}: " + ", ".join(f"{k} {v:.2f}" for k, v in found[arm][-1].items()), flush=True)
    for arm, rows in found.items():
        cells = []
        for name, key in SCORES:
            values = [row[key] for row in rows]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{name} {statistics.mean(values):.2f}{spread}")
        print(f"{arm:<10}", ", ".join(cells))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{(used.ru_utime + used.ru_stime) / 60:.1f} CPU minutes")


def make_corpus(layout: CorpusLayout) -> None:
    """Processed points of every video, and its texts, of which train keeps a tenth; meta.csv comes last."""
    demo = plan("bench", SEED)
    for video in demo.videos:
        write_video(layout, video)
    write_annotations(layout, demo)
    train = layout.index("train").read_text(encoding="utf-8").split()
    kept = set(train[::TEXT_SHARE])
    layout.index("train").write_text("".join(f"{clip_id}\n" for clip_id in train if clip_id in kept), encoding="utf-8")


def write_video(layout: CorpusLayout, video: PlannedVideo) -> None:
    """The files of extraction that a training on keypoints reads, from the figure's movement."""
    rng = video_rng(SEED, video.video_id)
    signer = signer_named(video.signer, SEED)
    motion = video_motion(video, signer, rng)
    camera = Camera.before(signer, rng)
    size_px = np.array([WIDTH_PX, HEIGHT_PX])
    points = np.tile(np.array(MISSING, np.float32), (video.num_frames, NUM_KEYPOINTS, 1))
    for frame in range(video.num_frames):
        for side, name, place in ((LEFT, "left", HAND_L), (RIGHT, "right", HAND_R)):
            found = limb(motion, frame, side, signer, camera)
            points[frame, place, :2] = found.hand[:, :2]
            named = {"shoulder": found.shoulder, "elbow": found.elbow, "wrist": found.hand[0]}
            for joint, at in named.items():
                points[frame, pose_index(f"{name}_{joint}"), :2] = at[:2]
        middle = np.array(MIDDLE) + motion.head[frame, :2] + motion.sway[frame]
        for name, offset in EYES.items():
            points[frame, pose_index(name), :2] = (camera.x_px, camera.y_px) + (middle + offset) * camera.unit_px
    seen = points[..., :1] != MISSING[0]
    noisy = (points[..., :2] + np.random.default_rng(SEED).normal(0, NOISE_PX, points[..., :2].shape)) / size_px
    points = np.where(seen, np.concatenate((noisy, np.ones_like(points[..., :1])), axis=-1), MISSING).astype(np.float32)
    write_keypoints(layout.keypoints(video.video_id), points)
    write_pose(layout.pose(video.video_id), signing_space(points[:, :NUM_POSE], WIDTH_PX, HEIGHT_PX))
    nothing = StreamTrack(
        np.zeros((video.num_frames, 4), np.float32),
        np.zeros(video.num_frames, np.float32),
        np.full(video.num_frames, BoxState.MISSING, np.uint8),
    )
    write_tracks(
        layout.tracks(video.video_id), Tracks(dict.fromkeys(STREAMS, nothing), np.arange(video.num_frames) / FPS)
    )
    write_metadata(layout.metadata(video.video_id), about(video))


def about(video: PlannedVideo) -> VideoMetadata:
    """What extraction would say of the video."""
    return VideoMetadata(
        video_id=video.video_id,
        status="ok",
        source_name=f"{video.video_id}.mp4",
        source_bytes=1,
        source_sha256="0" * 64,
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        source_fps=FPS,
        fps=FPS,
        num_frames=video.num_frames,
        duration_s=video.num_frames / FPS,
        crop_px=112,
        detector=DetectorInfo(name="truth", version="1"),
        signer=SignerInfo(chosen_by="alone"),
        face_privacy="none",
        spans_s=None,
        settings={},
        settings_digest="0",
        states={},
        num_pose_frames=video.num_frames,
        num_face_frames=0,
        timings_s={},
        checksums={},
        signstreams_version="0",
    )


def pretrain(folder: Path, epochs: int, settings: list[str]) -> Path:
    """The best.pt of a sequence pretraining."""
    output = folder / "_".join(["pretrained", str(epochs), *settings])
    if not (output / "artifacts.json").exists():
        from signstreams.config.load import build
        from signstreams.integrate.settings import IntegrateConfig
        from signstreams.sequence.settings import settings_of_training

        keys = settings_of_training(build(IntegrateConfig, [RECIPE], []))
        words = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
        words += [word for text in settings for word in ("--set", text)]
        words += ["--epochs", str(epochs), "--output-dir", str(output)]
        call("pretrain_sequence.py", folder / "corpus", folder / "features", *words)
    return output / "best.pt"


def train(folder: Path, name: str, seed: int, epochs: int, first: list[str]) -> dict[str, float]:
    """Scores on test of one training, unless it is done already."""
    output = folder / "runs" / f"{name}_{epochs}"
    if first:
        output = output.with_name(f"{output.name}_{Path(first[-1]).parent.name}")
    if not (output / "scores.json").exists():
        words = ["--config", str(RECIPE), "--epochs", str(epochs), "--seed", str(seed), "--output-dir", str(output)]
        words += ["--set", "data.unknown_gloss=count", "--train-eval-every-epochs", "20", *first]
        call("train_slt_multistream_v9.py", folder / "corpus", folder / "features", *words)
        call(
            "evaluate_slt.py",
            folder / "corpus",
            folder / "features",
            "--checkpoint",
            str(output / "best.pt"),
            "--blank-video",
            "false",
        )
        shutil.rmtree(output / "state")
    content = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    scores = {"bleu_4": content["bleu_4"], "chrf": content["chrf"]}
    return scores | {"wer": content["gloss"]["wer"], "loss": content["losses"]["translation"]}


def call(script: str, root: Path, features: Path, *words: str) -> None:
    """Run a script on a corpus, with one thread."""
    command = [sys.executable, str(PROJECT / "scripts" / script), "--root", str(root)]
    command += ["--features", str(features), *words]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{script}: ended with code {done.returncode}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
