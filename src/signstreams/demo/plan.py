"""What a demo corpus holds, known without rendering it: signers, videos, sentences, frames, splits.

Snakemake asks for the video ids while it reads its rules, so this module imports nothing heavy.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from signstreams.demo.language import GLOSSES, Sentence, sentences
from signstreams.demo.signers import SIGNERS
from signstreams.errors import UserError
from signstreams.formats.layout import CorpusLayout

ID_PREFIX = "demo_"  # prefix of the ids of its videos and clips
FPS = 25
WIDTH_PX, HEIGHT_PX = 640, 480

REST_FRAMES = 3  # the hands rest before the first, between two and after the last sentence of a video
RAISE_FRAMES = (6, 8)  # fewest and most frames in which the hands rise to the first sign, and sink after the last
TRANSITION_FRAMES = (6, 7)  # fewest and most frames between two signs
SIGN_FRAMES = (10, 12)  # fewest and most frames of a sign
MAX_CONTINUOUS_GLOSSES = 4  # glosses of the longest sentence of a continuous video

T = TypeVar("T")


@dataclass(frozen=True)
class SizeSpec:
    """How much a corpus of this size holds."""

    num_signers: int  # signers that take part
    clips_per_video: tuple[int, ...]  # clips of the videos, in turn
    num_videos: dict[str, int]  # split to its number of videos
    max_glosses: int  # glosses of the longest sentence of train
    max_held_out_glosses: int  # glosses of the longest sentence of val and test
    min_train_count: int  # least occurrences of each of its glosses in train
    glosses: tuple[str, ...] = GLOSSES  # of which its sentences are made; all of the lexicon, unless it is to be learnt


DEMO_GLOSSES = ("AGUA", "CAFÉ", "COMPRAR", "HOY", "LIBRO", "MAMÁ", "QUERER", "TÚ", "VER", "YO")
"""Signs that are easily told apart, and all 54 sentences of them: what a few minutes on 32 clips can teach."""

SIZES: dict[str, SizeSpec] = {
    "tiny": SizeSpec(4, (2,), {"train": 2, "val": 1, "test": 1}, 3, 2, 0),
    "demo": SizeSpec(5, (3, 3, 2), {"train": 12, "val": 3, "test": 5}, 4, 4, 4, DEMO_GLOSSES),
    "bench": SizeSpec(6, (2, 3), {"train": 96, "val": 12, "test": 12}, 5, 5, 10),
}


@dataclass(frozen=True)
class PlannedSign:
    """A gloss in frames ``start`` to ``end`` (excluded) of the video."""

    gloss: str
    start: int
    end: int


@dataclass(frozen=True)
class PlannedClip:
    """One sentence: frames ``start`` to ``end`` (excluded) of its video, raising and lowering the hands included."""

    clip_id: str
    sentence: Sentence
    start: int
    end: int
    signs: tuple[PlannedSign, ...]


@dataclass(frozen=True)
class PlannedVideo:
    """One file: a signer signs some sentences, with short rests between them."""

    video_id: str
    signer: str
    clips: tuple[PlannedClip, ...]
    num_frames: int


@dataclass(frozen=True)
class DemoPlan:
    """A whole demo corpus."""

    size: str  # key of `SIZES`
    seed: int  # seed of everything random
    signers: tuple[str, ...]  # Names of the signers who take part
    videos: tuple[PlannedVideo, ...]  # sorted by id
    splits: dict[str, tuple[str, ...]]
    """Split to its clip ids: video-disjoint, sentences of val and test unseen in train."""
    unseen_signer_splits: dict[str, tuple[str, ...]] | None
    """The same, val and test each with a signer of its own; only in ``bench``."""

    def clips(self) -> list[PlannedClip]:
        """All clips, in the order of the videos."""
        return [clip for video in self.videos for clip in video.clips]

    def video(self, video_id: str) -> PlannedVideo:
        """The video with that id; a `UserError` if there is none."""
        for video in self.videos:
            if video.video_id == video_id:
                return video
        known = f"{self.videos[0].video_id} to {self.videos[-1].video_id}"
        raise UserError(
            f"video '{video_id}': not in the demo corpus of size {self.size} and seed {self.seed}, expected {known}"
        )


def refuse_foreign(corpus: CorpusLayout) -> None:
    """Refuse to render the demo corpus over a user's own videos and texts, as when ``corpus.videos`` was forgotten."""
    entries = sorted(corpus.videos.iterdir()) if corpus.videos.is_dir() else []
    foreign = [path for path in entries if not path.name.startswith((".", ID_PREFIX))]
    if corpus.meta.is_file():
        with corpus.meta.open(encoding="utf-8-sig", errors="replace") as file:
            next(file, None)  # the columns
            foreign += [corpus.meta for line in itertools.islice(file, 1) if not line.startswith(ID_PREFIX)]
    if foreign:
        raise UserError(
            f"{foreign[-1]}: is not part of the demo corpus, which would be rendered into {corpus.root}; name the"
            f" folder of your videos (corpus.videos: {corpus.videos}), or another corpus.root"
        )


@cache
def plan(size: str, seed: int) -> DemoPlan:
    """The plan of a demo corpus; the same arguments always give the same plan. No such size is a `UserError`."""
    if size not in SIZES:
        raise UserError(f"size '{size}': no such demo corpus, expected one of {', '.join(SIZES)}")
    spec = SIZES[size]
    rng = random.Random(f"signstreams demo {size} {seed}")
    signers = tuple(signer.name for signer in SIGNERS[: spec.num_signers])
    split_of_video = _shuffled(rng, [split for split, count in spec.num_videos.items() for _ in range(count)])
    num_clips = [spec.clips_per_video[i % len(spec.clips_per_video)] for i in range(len(split_of_video))]
    wanted = Counter(dict.fromkeys(spec.num_videos, 0))
    for split, count in zip(split_of_video, num_clips, strict=True):
        wanted[split] += count
    chosen = {split: iter(group) for split, group in _choose_sentences(rng, spec, wanted).items()}
    videos: list[PlannedVideo] = []
    splits: dict[str, list[str]] = {split: [] for split in spec.num_videos}
    for number, (split, count) in enumerate(zip(split_of_video, num_clips, strict=True)):
        video = _video(
            rng, f"{ID_PREFIX}{number:03d}", signers[number % len(signers)], [next(chosen[split]) for _ in range(count)]
        )
        videos.append(video)
        splits[split] += [clip.clip_id for clip in video.clips]
    return DemoPlan(
        size=size,
        seed=seed,
        signers=signers,
        videos=tuple(videos),
        splits={split: tuple(ids) for split, ids in splits.items()},
        unseen_signer_splits=_by_signer(videos, signers) if size == "bench" else None,
    )


def plan_continuous(
    video_id: str, signer: str, length_s: float, rests_s: tuple[float, float], seed: int
) -> PlannedVideo:
    """A video of one sentence after another, with rests of ``rests_s`` (least, most) between them.

    It starts with a second of rest and is at most ``length_s`` long; the demo corpus itself rests for 0.12 s only.
    """
    rng = random.Random(f"signstreams continuous {video_id} {seed}")
    pool = [sentence for sentence in sentences() if len(sentence.glosses) <= MAX_CONTINUOUS_GLOSSES]
    frame = FPS
    clips: list[PlannedClip] = []
    while True:
        clip = _clip(rng, f"{video_id}_{len(clips)}", pool[int(rng.random() * len(pool))], frame)
        if clip.end > length_s * FPS:
            return PlannedVideo(video_id, signer, tuple(clips), frame)
        clips.append(clip)
        frame = clip.end + round(FPS * (rests_s[0] + rng.random() * (rests_s[1] - rests_s[0])))


def _choose_sentences(rng: random.Random, spec: SizeSpec, wanted: Counter[str]) -> dict[str, list[Sentence]]:
    """Split to different sentences; those of val and test are made of glosses that train has."""
    for _ in range(1000):
        known = [s for s in sentences() if len(s.glosses) <= spec.max_glosses and set(s.glosses) <= set(spec.glosses)]
        pool = _shuffled(rng, known)
        counts: Counter[str] = Counter()
        chosen = {"train": _take(pool, wanted["train"], counts)}
        if min((counts[gloss] for gloss in spec.glosses), default=0) < spec.min_train_count:
            continue
        pool = [s for s in pool if len(s.glosses) <= spec.max_held_out_glosses and set(s.glosses) <= set(counts)]
        held_out: Counter[str] = Counter()
        for split in ("val", "test"):
            chosen[split] = _take(pool, wanted[split], held_out)
        if all(len(chosen[split]) == count for split, count in wanted.items()):
            return {split: _shuffled(rng, group) for split, group in chosen.items()}
    raise AssertionError("no choice of sentences covers the lexicon: the sizes do not fit the grammar")


def _take(pool: list[Sentence], count: int, counts: Counter[str]) -> list[Sentence]:
    """Move ``count`` sentences out of ``pool``, each time that with the rarest glosses among the next forty."""
    taken: list[Sentence] = []
    while len(taken) < count and pool:
        best = max(pool[:40], key=lambda s: sum((1 + counts[gloss]) ** -3 for gloss in s.glosses) / len(s.glosses))
        pool.remove(best)
        counts.update(best.glosses)
        taken.append(best)
    return taken


def _video(rng: random.Random, video_id: str, signer: str, group: Sequence[Sentence]) -> PlannedVideo:
    frame = REST_FRAMES
    clips = []
    for number, sentence in enumerate(group):
        clips.append(_clip(rng, f"{video_id}_{number}", sentence, frame))
        frame = clips[-1].end + REST_FRAMES
    return PlannedVideo(video_id, signer, tuple(clips), frame)


def _clip(rng: random.Random, clip_id: str, sentence: Sentence, start: int) -> PlannedClip:
    frame = start + _between(rng, RAISE_FRAMES)
    signs = []
    for position, gloss in enumerate(sentence.glosses):
        if position:
            frame += _between(rng, TRANSITION_FRAMES)
        end = frame + _between(rng, SIGN_FRAMES)
        signs.append(PlannedSign(gloss, frame, end))
        frame = end
    return PlannedClip(clip_id, sentence, start, frame + _between(rng, RAISE_FRAMES), tuple(signs))


def _by_signer(videos: Sequence[PlannedVideo], signers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    split_of = {signers[-2]: "val", signers[-1]: "test"}
    return {
        split: tuple(c.clip_id for v in videos if split_of.get(v.signer, "train") == split for c in v.clips)
        for split in ("train", "val", "test")
    }


# Only rng.random() gives the same numbers in every version of Python: choices are built on it.
def _between(rng: random.Random, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return low + int(rng.random() * (high - low + 1))


def _shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    keyed = sorted((rng.random(), position) for position in range(len(items)))
    return [items[position] for _, position in keyed]
