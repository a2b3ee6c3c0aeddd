"""The Python API for notebooks and other programs: one video, one corpus, one backbone, one model at a time.

Users write ``import signstreams as ss`` and find these names there (docs/python.md). Each does what a command does and
takes its settings by the names of docs/configuration.md; what is wrong with input is a `UserError`. Nothing heavy is
imported before a function needs it.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from signstreams.errors import DamagedFile, UserError
from signstreams.formats.layout import PRETRAINING_FILES, SPLITS, CorpusLayout
from signstreams.streams import STREAMS

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from signstreams.array_types import Floats, Ints, Pixels
    from signstreams.backbones.archs import Layers
    from signstreams.backbones.weights import Backbone
    from signstreams.config.section import Section
    from signstreams.corpus.clips import Clip
    from signstreams.formats.arrays import StreamTrack
    from signstreams.formats.video_metadata import VideoMetadata
    from signstreams.translate.run import Translation, Translator

    ConfigT = TypeVar("ConfigT", bound=Section)
    ValueT = TypeVar("ValueT")

Given = ParamSpec("Given")
Result = TypeVar("Result")


def _names_arguments(config: str, **renamed: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Errors of the function name its arguments, where those of a command name the flags of its ``config`` class.

    ``renamed`` are keys of the config that the function calls otherwise.
    """

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        @functools.wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            try:
                return function(*args, **kwargs)
            except UserError as error:
                module, _, name = config.partition(":")
                model = getattr(importlib.import_module(f"signstreams.{module}"), name)
                error.problems = [_with_arguments(problem, model, renamed) for problem in error.problems]
                error.args = ("\n".join(error.problems),)
                raise

        return call

    return decorate


def _with_arguments(problem: str, model: type[Section], renamed: Mapping[str, str]) -> str:
    from signstreams.config.load import flag_names, leaves

    keys = {flag: renamed.get(key, key) for key, field in leaves(model) for flag in flag_names(key, field)}

    def argument(flag: re.Match[str]) -> str:
        return f"'{keys[flag[0]]}'" if flag[0] in keys else flag[0]  # that of another command stays

    return re.sub(r"(?<![\w-])--[a-z0-9-]+", argument, problem)


# -- What extraction wrote


class Crops(NamedTuple):
    """Crops of one stream of a video."""

    frames: NDArray[np.int64]
    """(N,) number of the frame that each crop is of, rising."""
    images: NDArray[np.uint8]
    """(N, px, px, 3), red, green, blue."""


@dataclasses.dataclass(frozen=True)
class ExtractedVideo:
    """What extraction wrote of one video; each method reads its file.

    T counts frames; frame f is the same instant in every array. Sides are the signer's own: hand_l is the left hand.
    """

    root: Path  # root of its corpus
    video_id: str  # its name without ending

    def crops(self, stream: str, frames: Iterable[int] | None = None) -> Crops:
        """As `read_crops`."""
        return read_crops(self.root, stream, self.video_id, frames=frames)

    def times_s(self) -> Floats:
        """(T,) float64, time of each frame in seconds from the start of the video."""
        from signstreams.formats.arrays import read_times

        return _read(read_times, self._layout.tracks(self.video_id))

    def frames_of(self, clip: Clip) -> Ints:
        """Rising numbers of the frames of one of its clips: ``start_s <= time < end_s``, or all without a span."""
        import numpy as np

        from signstreams.formats.arrays import frames_of_span

        if clip.video_id != self.video_id:
            raise UserError(
                f"clip {clip.clip_id}: is of video {clip.video_id}, not of {self.video_id}; take that video"
            )
        return np.array(frames_of_span(self.times_s(), clip.start_s, clip.end_s), dtype=np.int64)

    def keypoints(self) -> Floats:
        """(T, 543, 3) float32: x, y as fractions of frame width and height, confidence; a missing point: (-1, -1, 0).

        33 points of the body, 468 of the face, 21 of the left hand, 21 of the right hand.
        """
        from signstreams.formats.arrays import read_keypoints

        return _read(read_keypoints, self._layout.keypoints(self.video_id))

    def pose(self) -> Floats:
        """(T, 33, 3) float32: x, y of the body in signing space, visibility; a missing point: (-1, -1, 0)."""
        from signstreams.formats.arrays import read_pose

        return _read(read_pose, self._layout.pose(self.video_id)).reshape(-1, 33, 3)

    def tracks(self) -> dict[str, StreamTrack]:
        """Stream to its ``box`` (T, 4) in px, ``confidence`` (T,), and ``state`` (T,), where 0 is a missing crop."""
        from signstreams.formats.arrays import read_tracks

        return _read(read_tracks, self._layout.tracks(self.video_id)).streams

    def metadata(self) -> VideoMetadata:
        """Sizes, rates, settings, detector, signer, and how often each stream was found."""
        from signstreams.formats.video_metadata import read_metadata

        return _read(read_metadata, self._layout.metadata(self.video_id))

    @property
    def preview(self) -> Path:
        """A picture of frames with points and boxes, and of crops."""
        return self._layout.preview(self.video_id)

    @property
    def _layout(self) -> CorpusLayout:
        return CorpusLayout(self.root)


@dataclasses.dataclass(frozen=True)
class ExtractedCorpus:
    """A corpus: extracted videos, and clips with their texts."""

    root: Path  # its folder
    videos: dict[str, ExtractedVideo]  # extracted videos by id, sorted
    quarantined: dict[str, str]  # id of each video that could not be read to the reason
    clips: list[Clip]
    """Clips of meta.csv, ``split`` as index/ has it where there is one; without meta.csv a clip per video, no text."""
    glosses: dict[str, list[str]]  # clip id to its glosses; empty without annotations/gloss.csv


@_names_arguments("extract.settings:ExtractConfig", videos="video")
def extract_video(video: str | Path, root: str | Path, **settings: Any) -> ExtractedVideo:
    """Extract one video into a corpus, as ``signstreams extract`` does; a current result is left as it is.

    Args:
        video: A video file, or a folder of frames. Its name without ending is its id.
        root: Folder of the corpus: results go into its ``processed/``; a ``box`` in its meta.csv says who signs.
        settings: As in docs/configuration.md, extraction: ``fps=25, crop_px=112, tracker={"stride": 2}``.

    Raises:
        UserError: The video cannot be read, or a setting is wrong.
    """
    from signstreams.contract.run_checks import check_after_extraction
    from signstreams.extract.batch import extract_videos, find_videos
    from signstreams.extract.settings import ExtractConfig

    of_several = ("videos", "root", "only", "manifest", "max_failed_fraction", "num_jobs")
    if idle := [name for name in settings if name in of_several]:
        raise UserError(f"extract_video: '{idle[0]}' has no effect on a single video; leave it out")
    config = _config(ExtractConfig, {**settings, "videos": [video], "root": root}, "extract_video")
    if len(found := find_videos(config.videos)) != 1:
        raise UserError(f"{video}: holds {len(found)} videos, expected one; extract them one by one")
    (video_id,) = found
    outcome = extract_videos(config, on_result=check_after_extraction)
    if outcome.unannotated:
        raise UserError(f"{video}: meta.csv has no span of it, which spans_only needs; leave spans_only out")
    if reason := outcome.quarantined.get(video_id):
        raise UserError(f"{video}: {reason}; convert it with ffmpeg, or name another video")
    return ExtractedVideo(config.root, video_id)


@_names_arguments("corpus.settings:SplitCorpusConfig")
def open_corpus(root: str | Path, *, allow_absent_videos: bool = False) -> ExtractedCorpus:
    """The extracted videos, clips, splits and glosses below the root of a corpus.

    Args:
        root: Folder with ``processed/`` and, where there are texts, meta.csv, annotations/ and index/.
        allow_absent_videos: Leave out clips whose video is not there, instead of refusing them.

    Raises:
        UserError: All problems of its tables.
    """
    from signstreams.corpus.corpus import scan_corpus
    from signstreams.corpus.findings import raise_errors
    from signstreams.corpus.gloss import read_gloss
    from signstreams.corpus.splits import read_index

    layout = CorpusLayout(Path(root))
    if not layout.root.is_dir():
        raise UserError(f"{root}: no such folder, expected the root of a corpus; name one that holds processed/")
    folder = layout.metadata("x").parent
    if not folder.is_dir() and not layout.videos.is_dir():
        raise UserError(
            f"{root}: holds neither {folder.relative_to(layout.root)} nor {layout.videos.relative_to(layout.root)},"
            " expected the root of a corpus; extract its videos first, or name another"
        )
    videos = {path.stem: ExtractedVideo(layout.root, path.stem) for path in sorted(folder.glob("*.json"))}
    reasons = {name: found.reason or "" for name, video in videos.items() if (found := video.metadata()).reason}
    corpus = scan_corpus(layout, allow_absent_videos=allow_absent_videos, other_ids=videos)
    raise_errors(corpus.issues)
    clips = corpus.clips
    if any(layout.index(split).is_file() for split in SPLITS):
        index = read_index(layout, clips, corpus.absent_ids)
        split_of = {clip_id: split for split, ids in index.items() for clip_id in ids}
        clips = [dataclasses.replace(clip, split=split_of.get(clip.clip_id)) for clip in clips]
    glosses: dict[str, list[str]] = {}
    if layout.gloss.is_file():
        known = {clip.clip_id for clip in clips}
        found_glosses = read_gloss(layout.gloss, {*known, *corpus.absent_ids})
        glosses = {clip_id: list(gloss.labels) for clip_id, gloss in found_glosses.items() if clip_id in known}
    usable = {name: video for name, video in videos.items() if name not in reasons}
    return ExtractedCorpus(layout.root, usable, reasons, clips, glosses)


def read_crops(
    corpus: ExtractedCorpus | str | Path, stream: str, video_id: str, *, frames: Iterable[int] | None = None
) -> Crops:
    """Crops of one stream of an extracted video, decoded: ``frames, images = ss.read_crops(corpus, "hand_r", "a")``.

    Frames in which the stream is missing have no crop and are left out, also where ``frames`` asks for them.

    Args:
        corpus: A corpus, or its root.
        stream: ``face``, ``hand_l`` or ``hand_r``, the signer's own left and right; no crop is mirrored.
        video_id: The video.
        frames: Numbers of frames; None for all: an hour of crops of 224 px has 14 GB.

    Raises:
        UserError: No such stream, video or frame, or a file is damaged.
    """
    import numpy as np

    from signstreams.integrate.features import ImageReader, present_crops

    root = corpus.root if isinstance(corpus, ExtractedCorpus) else Path(corpus)
    _check_stream(stream)
    video = ExtractedVideo(root, video_id)
    side = video.metadata().crop_px
    num_frames, crops = _read(lambda _: present_crops(CorpusLayout(root), stream, video_id), root)
    wanted = sorted(crops if frames is None else _whole_numbers(frames))
    if wanted and not 0 <= wanted[0] <= wanted[-1] < num_frames:
        raise UserError(
            f"{root}, video {video_id}: has {num_frames} frames, but frame"
            f" {wanted[0] if wanted[0] < 0 else wanted[-1]} is asked for; ask for 0 to {num_frames - 1}"
        )
    there = [frame for frame in wanted if frame in crops]
    images = ImageReader({stream: side})(stream, [crops[frame] for frame in there])
    return Crops(np.array(there, dtype=np.int64), images.astype(np.uint8, copy=False))


def _whole_numbers(frames: Iterable[int]) -> set[int]:
    """Numbers of frames; a mask is refused, since its False and True would count as frames 0 and 1."""
    import numpy as np

    given = np.array(list(frames))
    if given.size and (given.ndim != 1 or not np.issubdtype(given.dtype, np.integer)):
        raise UserError(
            f"read_crops: frames are {given.dtype} of shape {given.shape}, expected whole numbers of frames (N,); of a"
            " mask, give numpy.flatnonzero(mask)"
        )
    return {int(frame) for frame in given}


# -- Backbones


@_names_arguments("integrate.settings:EmbedConfig")
def load_backbone(spec: str | Path, *, download: bool = False) -> Backbone:
    """A backbone in evaluation mode, on the CPU; a `torch.nn.Module`.

    Args:
        spec: A file of weights, the folder of a run or of a stream in a release, ``file::PATH:ARCHITECTURE``, or
            ``timm::NAME``; which layouts of weights are read: docs/pretraining.md.
        download: Let ``timm::`` fetch weights that are not in the local cache.

    Raises:
        UserError: There is no such file or model, or it is no vision transformer that is known.
    """
    from signstreams.backbones.weights import load_dinov2_backbone

    return load_dinov2_backbone(_backbone_spec(spec), download=download)


def embed(
    backbone: Backbone,
    images: Pixels | Sequence[Pixels],
    *,
    stream: str | None,
    layers: Layers = "last",
    batch_size: int = 64,
    device: str | torch.device = "auto",
) -> Floats:
    """Features of square crops of any size, float32 (N, D), as the stage that embeds a corpus computes them.

    Crops are resized to the side of the backbone's training, ``backbone.image_px``; a backbone of both hands gets left
    ones mirrored. The backbone stays on the device.

    Args:
        backbone: From `load_backbone`.
        images: (N, px, px, 3) uint8, red, green, blue; or N arrays (px, px, 3), whose sizes may differ.
        stream: ``face``, ``hand_l`` or ``hand_r``: what the crops show; None for images of no stream.
        layers: ``last``: the last class token; ``last_and_patches``: beside it the mean of the patches, (N, 2 D);
            ``weighted``: the class token of every layer, (N, L, D).
        batch_size: Crops at once.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        UserError: Images or names are other than these.
    """
    import logging
    from typing import get_args

    import numpy as np
    import torch

    from signstreams.backbones.archs import Layers
    from signstreams.backbones.weights import UNKNOWN_SIDE
    from signstreams.integrate.features import resized

    if stream is not None:
        _check_stream(stream)
    elif backbone.mirrored_streams:
        logging.getLogger(__name__).warning("the backbone %s", UNKNOWN_SIDE)
    if layers not in get_args(Layers):
        raise UserError(f"embed: layers is '{layers}', expected one of {', '.join(get_args(Layers))}")
    if batch_size < 1:
        raise UserError(f"embed: batch_size is {batch_size}, expected 1 at least")
    if layers == "last_and_patches" and not backbone.has_patches:
        raise UserError("embed: the backbone has no patch tokens, which layers 'last_and_patches' needs; use 'last'")
    arrays = [np.asarray(image) for image in images]
    for number, image in enumerate(arrays):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.shape[0] != image.shape[1]:
            raise UserError(
                f"embed: image {number} is {image.dtype} of shape {image.shape}, expected uint8 (px, px, 3); cut it to"
                " a square, and give images as a list or as an array (N, px, px, 3)"
            )
    place, side = _device(device), backbone.image_px
    found = [np.empty((0, *backbone.feature_shape(layers)), np.float32)]
    backbone.to(place)
    with torch.inference_mode():
        for start in range(0, len(arrays), batch_size):
            batch = np.stack([resized(image, side) for image in arrays[start : start + batch_size]])
            inputs = backbone.inputs(torch.from_numpy(batch).to(place), stream)  # (N, 3, side, side)
            found.append(backbone.features(inputs, layers).float().cpu().numpy())
    return np.concatenate(found)


@_names_arguments("judge.settings:EvaluateBackboneConfig", backbone="backbones")
def evaluate_backbone(
    data: str | Path,
    backbones: str | Path | Sequence[str | Path],
    *,
    labels: str | None = None,
    output: str | Path | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Judge backbones on labelled images or clips, as ``signstreams evaluate-backbone`` does.

    Args:
        data: Folder or ZIP of images, or the root of an extracted corpus.
        backbones: One or several, each as `load_backbone` takes it; none: only what costs nothing.
        labels: Where labels come from: ``folders``, ``texts``, a CSV, a pattern such as ``<class>_<signer>_<n>``.
        output: Folder for judge.json, judge.csv and judge.png; None writes nothing.
        settings: Further ones of docs/configuration.md: ``streams=["hand_r"], probe=False, seed=1, device="cpu"``.

    Returns:
        A row for each source of features (backbones, their first weights, HOG, pixels), split and probe: ``name``,
        ``kind``, ``features``, ``width``, ``split``, ``probe``, ``accuracy`` 0..1 with ``low`` and ``high`` of its 95 %
        interval, ``about``. `pandas.DataFrame` takes it as it is.

    Raises:
        UserError: All problems of the set or of the backbones.
    """
    from signstreams.judge.report import score_rows
    from signstreams.judge.run import evaluate_backbones, judged
    from signstreams.judge.settings import EvaluateBackboneConfig

    several = [backbones] if isinstance(backbones, str | Path) else backbones
    own = {"data": data, "output": output or "", "backbone": [_backbone_spec(spec) for spec in several]}
    if twice := settings.keys() & own.keys():
        raise UserError(f"evaluate_backbone: '{min(twice)}' is given twice; leave one of them out")
    config = _config(EvaluateBackboneConfig, {**settings, **own, "labels": labels}, "evaluate_backbone")
    return score_rows(judged(config) if output is None else evaluate_backbones(config))


# -- Translation


@_names_arguments("translate.settings:TranslateConfig")
def load_translator(
    checkpoint: str | Path,
    *,
    boundary_model: str | Path | None = None,
    device: str | torch.device = "auto",
    **settings: Any,
) -> Translator:
    """Load a translation model with its backbones and its tokenizer, once for any number of videos.

    Args:
        checkpoint: A best.pt, the folder of its run, a work_dir, or a release.
        boundary_model: A boundary.pt that finds sentences; None: by the hands' rests.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``.
        settings: Further ones of docs/configuration.md: backbones that were moved (``face_backbone="file::PATH"``),
            ``decoding={"num_beams": 1}``, ``download=True``.

    Raises:
        UserError: Something is missing, damaged, or not what the model was trained with.
    """
    from signstreams.integrate.settings import TrainedModelSection
    from signstreams.translate.run import Translator

    given = _config(TrainedModelSection, {**settings, "checkpoint": checkpoint}, "load_translator")
    return Translator(given, _device(device), None if boundary_model is None else Path(boundary_model))


@_names_arguments("translate.settings:TranslateConfig", videos="video")
def translate_video(
    translator: Translator,
    video: str | Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    segments: str | Path | None = None,
    tier: str | None = None,
    pause_s: float | None = None,
    box: Sequence[float] | None = None,
    points: str | Path | None = None,
    output: Sequence[str | Path] = (),
) -> Translation:
    """Translate one video of any length, as ``signstreams translate`` does (docs/subtitles.md).

    Args:
        translator: From `load_translator`.
        video: A video file, or a folder of frames.
        start_s: Start of the part to translate; None: that of the video.
        end_s: End of the part; None: that of the video.
        segments: Where the sentences are: a table, .srt, .vtt or .eaf file; ``found``; ``whole``. None: whole for a
            video as long as a clip of training, else found.
        tier: Tier of an ELAN file of ``segments``.
        pause_s: Shortest rest between two sentences that are found.
        box: The signer's place, x0, y0, x1, y1 in px; None: of several people, the one whose hands move most.
        points: Folder of points of another tool, for a model that was trained on such points.
        output: Files to write as well: .srt, .vtt, .eaf, .json, .csv, .html.

    Returns:
        ``sentences``, each with ``start_s``, ``end_s``, ``text`` and ``glosses``; ``text`` of all; ``duration_s``;
        ``notes``; ``as_dict()`` for JSON.

    Raises:
        UserError: No person is in the video, or something is wrong with it or a setting.
    """
    from signstreams.translate.plan import list_videos
    from signstreams.translate.settings import FOUND, TranslateConfig

    if len(list_videos([Path(video)])) != 1:
        raise UserError(f"{video}: holds several videos, expected one; translate them one by one")
    finds = segments in (None, FOUND)
    given: dict[str, Any] = {
        **translator.settings.model_dump(),
        "videos": [video],
        "segments": None if segments is None else str(segments),
        "boundary_model": translator.boundary_model if finds else None,  # given sentences need none
        "start_s": start_s,
        "end_s": end_s,
        "tier": tier,
        "pause_s": pause_s,
        "box": None if box is None else list(box),
        "points": points,
        "output": list(output),
    }
    (translation,) = translator.translate(_config(TranslateConfig, given, "translate_video"))
    return translation


# -- Shared


def _config(model: type[ConfigT], tree: Mapping[str, Any], place: str) -> ConfigT:
    """A checked config; a `UserError` names each problem and the function of the API."""
    from signstreams.config.load import check

    return check(model, dict(tree), place)


def _read(read: Callable[[Path], ValueT], path: Path) -> ValueT:
    """What a reader makes of a file of extraction; an absent one is a `UserError`."""
    try:
        return read(path)
    except FileNotFoundError as error:
        fix = "extract the video first, or name another"
        raise DamagedFile(error.filename or path, "no such file", expected="an extracted video", fix=fix) from None


def _check_stream(stream: str) -> None:
    if stream not in STREAMS:
        raise UserError(f"stream '{stream}': unknown, expected one of {', '.join(STREAMS)}")


def _device(device: str | torch.device) -> torch.device:
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # no such name; a torch that was built without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise UserError(f"device '{device}': {reason.rstrip('.')}; use 'auto' or 'cpu'") from None
    return found


def _backbone_spec(given: str | Path) -> str:
    """``file::PATH`` or ``timm::NAME`` of what a user names: a spec, a file, or a folder with a ``backbone.pt``."""
    if isinstance(given, str) and "::" in given:
        return given
    path, name = Path(given), PRETRAINING_FILES["backbone"]
    if not path.is_dir() or (path / name).is_file():
        return f"file::{path / name if path.is_dir() else given}"
    inside = sorted(found.parent for found in [*path.glob(f"backbones/*/{name}"), *path.glob(f"*/{name}")])
    if not inside:
        raise UserError(f"{path}: found no {name} in this folder, expected that of a pretraining; name a file")
    if len(inside) > 1:
        raise UserError(f"{path}: holds {len(inside)} backbones ({', '.join(map(str, inside))}); name one of them")
    return f"file::{inside[0] / name}"
