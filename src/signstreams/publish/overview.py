"""``overview.html``: the whole run on one self-contained page, for a desktop and a phone."""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signstreams.array_types import Pixels
from signstreams.engine.run_folder import commit, versions
from signstreams.files import read_json
from signstreams.formats.crops import CropReader, clip_strip, evenly_spread, list_crops, most_different
from signstreams.formats.layout import JUDGE_FILES, PRETRAINING_FILES, CorpusLayout, RunLayout
from signstreams.language import tr
from signstreams.pages.render import ShownClip, relative_address, render, write_links
from signstreams.publish.figures import (
    contract_figures,
    demo_range,
    has_scores_of_another,
    judged,
    pretraining_figures,
    read_runtimes,
    sequence_figures,
    stage_figures,
    starts_from_sequence,
    translation_figures,
)
from signstreams.publish.verdict import verdict
from signstreams.streams import STREAMS

PICTURE_PX = 1100  # width that pictures are reduced to; the files beside the backbones are larger
BROAD_PX = 900  # A picture broader than this is alone in its row
MAX_TRANSLATIONS = 12
NUM_CROPS, CROP_PX = 15, 80  # sample crops of a stream, and their side
CANDIDATE_VIDEOS, CANDIDATES_PER_VIDEO = 40, 8  # of which they are chosen
COMPARED_PX = 16  # side at which crops are compared


@dataclass(frozen=True)
class SampleCrop:
    """A small crop, and of whom it is."""

    video_id: str
    frame: int
    signer: str | None
    image: Pixels  # (CROP_PX, CROP_PX, 3)


def render_overview(
    root: Path,
    work_dir: Path,
    logs: Path,
    settings: Mapping[str, Any],
    page: Path | None = None,
    *,
    pretraining_only: bool = False,
) -> str:
    """HTML of the page; a stage that has not run is left out. The workflow's ``settings`` are shown as they are.

    ``page`` is where it will be, by default in the work_dir: its links to the other pages are relative to that.
    ``pretraining_only``: without what comes after the backbones, which an earlier run may have left.
    """
    runs = RunLayout(work_dir)
    corpus = contract_figures(CorpusLayout(root))
    found = {stream: pretraining_figures(runs, stream) for stream in STREAMS}
    backbones = {stream: figures for stream, figures in found.items() if figures is not None}
    has_translation = not pretraining_only
    is_outdated = has_translation and has_scores_of_another(runs)
    scores = translation_figures(runs) if has_translation else None
    stages = stage_figures(runs)
    return render(
        "overview.html",
        root=root,
        work_dir=work_dir,
        has_translation=has_translation,
        pages=_other_pages(CorpusLayout(root), runs, page or runs.overview),
        verdict=verdict(corpus, backbones, scores, is_outdated=is_outdated, expected=demo_range()),
        crops={} if corpus is None else _sample_crops(CorpusLayout(root), corpus["signers"]),
        corpus=corpus,
        num_streams=len(STREAMS),
        backbones=backbones,
        knn={stream: judged(figures) for stream, figures in backbones.items()},
        pictures={
            name: _pictures(
                (runs.pretraining(stream) / (PRETRAINING_FILES | JUDGE_FILES)[name], f"{stream}: {caption}")
                for stream, figures in backbones.items()
                if name != "judge" or "judge" in figures
            )
            for name, caption in _captions().items()
        },
        broad_px=BROAD_PX,
        sequence=sequence_figures(runs) if has_translation else None,
        is_sequence_used=starts_from_sequence(runs),
        sequence_curves=_pictures([(runs.sequence_file("curves"), tr("sequence pretraining"))]),
        is_outdated=is_outdated,
        scores=None if is_outdated else scores,
        training_curves=_pictures(
            [
                *((runs.stage_file(name, "curves"), f"{_stage(name)}: {text}") for name, text in stages.items()),
                (runs.training_file("curves"), tr("training of the translation model")),
            ]
        ),
        clips=[]
        if is_outdated or not has_translation
        else _clips(runs.evaluation_file("predictions"), CorpusLayout(root)),
        runtimes=read_runtimes(logs),
        ran_on=_ran_on(),
        all_settings=_settings(settings, backbones, runs),
    )


def _captions() -> dict[str, str]:
    """Picture of a pretraining, a key of `formats.layout.PRETRAINING_FILES` or `JUDGE_FILES`, to its caption."""
    return {
        "curves": tr("loss and health"),
        "judge": tr("right answers"),
        "neighbours": tr("nearest crops"),
        "attention": tr("where the class token looks"),
        "patches": tr("patches by their main directions"),
    }


def link_pages(root: Path, work_dir: Path) -> None:
    """Link the pages that were written before the overview to it and to each other; it has links of its own."""
    layout, runs = CorpusLayout(root), RunLayout(work_dir)
    for page in (layout.report_page, runs.evaluation_file("page"), runs.pretraining_page):
        with suppress(OSError):  # it is not there, or is not ours to change
            write_links(page, _other_pages(layout, runs, page))


def _other_pages(layout: CorpusLayout, runs: RunLayout, page: Path) -> list[tuple[str, str]]:
    """Name and address of the pages that are there, from one of them or any other place."""
    named = [(tr("the whole run"), runs.overview), (tr("pretraining"), runs.pretraining_page)]
    named += [(tr("data contract"), layout.report_page), (tr("translations"), runs.evaluation_file("page"))]
    named += [
        (tr("model card of %(stream)s", stream=stream), runs.pretraining_file(stream, "card")) for stream in STREAMS
    ]
    named += [(tr("Snakemake's report"), runs.report)]
    return [
        (name, relative_address(file, page))
        for name, file in named
        if file.is_file() and file.resolve() != page.resolve()
    ]


def _sample_crops(layout: CorpusLayout, signers: Mapping[str, str | None]) -> dict[str, list[SampleCrop]]:
    """Stream to crops that differ, spread over signers and videos; damaged ones are left out."""
    videos = list(signers)
    videos = [videos[i] for i in evenly_spread(min(CANDIDATE_VIDEOS, len(videos)), len(videos))]
    with closing(CropReader()) as reader:
        found = {stream: _different_crops(layout, stream, videos, signers, reader) for stream in STREAMS}
    return {stream: crops for stream, crops in found.items() if crops}


def _different_crops(
    layout: CorpusLayout, stream: str, videos: Sequence[str], signers: Mapping[str, str | None], reader: CropReader
) -> list[SampleCrop]:
    import cv2

    offered, small = [], []
    for video_id in videos:
        with suppress(OSError, ValueError):
            crops = list_crops(layout.crops(stream, video_id))
            for place in evenly_spread(min(CANDIDATES_PER_VIDEO, len(crops)), len(crops)):
                data = np.frombuffer(reader.read(crops[place]), np.uint8)
                image = cv2.imdecode(data, cv2.IMREAD_COLOR)
                if image is None:
                    continue
                shown = cv2.resize(image, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
                offered.append(SampleCrop(video_id, crops[place].frame, signers[video_id], shown))
                grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (COMPARED_PX, COMPARED_PX)).astype(float)
                small.append((grey - grey.mean()).ravel())  # light alone is no difference
    if not offered:
        return []
    groups = [(crop.signer or "", crop.video_id) for crop in offered]
    return [offered[i] for i in most_different(np.array(small), groups, NUM_CROPS)]


def _pictures(named: Iterable[tuple[Path, str]]) -> list[dict[str, Any]]:
    """Pictures (H, W, 3) and their captions, at most `PICTURE_PX` wide; absent or damaged ones are left out."""
    import cv2

    pictures = []
    for path, caption in named:
        image = cv2.imread(str(path)) if path.is_file() else None  # (H, W, 3)
        if image is None:
            continue
        height_px, width_px = image.shape[:2]
        if width_px > PICTURE_PX:
            size = (PICTURE_PX, round(height_px * PICTURE_PX / width_px))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        pictures.append({"caption": caption, "image": image})
    return pictures


def _clips(predictions: Path, layout: CorpusLayout) -> list[ShownClip]:
    """The first clips of test, or of all splits where none is of test."""
    if not predictions.is_file():
        return []
    with predictions.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if row["split"] == "test"] or rows
    with closing(CropReader()) as reader:
        return [_clip(row, layout, reader) for row in rows[:MAX_TRANSLATIONS]]


def _clip(row: Mapping[str, str], layout: CorpusLayout, reader: CropReader) -> ShownClip:
    frames = None
    if row.get("video_id"):  # older evaluations did not record where a clip is
        places = range(int(row["first_frame"]), int(row["last_frame"]) + 1)
        frames = clip_strip(layout, row["video_id"], places, reader)
    glosses = (row["gloss_reference"], row["gloss_hypothesis"]) if row.get("gloss_reference") else ()
    return ShownClip(row["clip_id"], frames, row["reference"], row["hypothesis"], *glosses)


def _ran_on() -> dict[str, str]:
    """Machine, versions and commit."""
    machine = {tr("machine"): f"{platform.machine()}, {platform.system()} {platform.release()}"}
    return machine | versions() | ({tr("commit"): found} if (found := commit()) else {})


def _settings(settings: Mapping[str, Any], backbones: Mapping[str, Any], runs: RunLayout) -> dict[str, Any]:
    """Title to settings: of the workflow, of each pretraining, of the translation model."""
    titled = {tr("workflow"): settings}
    for stream, figures in backbones.items():
        params = figures["params"]
        titled[tr("pretraining of %(stream)s", stream=stream)] = {
            key: params.get(key) for key in ("config", "chosen", "versions")
        }
    titled |= {_stage(stage): read_json(runs.stage_file(stage, "config")) for stage in stage_figures(runs)}
    for title, config in (
        (tr("sequence pretraining"), runs.sequence_file("config")),
        (tr("translation model"), runs.training_file("config")),
    ):
        if config.is_file():
            titled[title] = read_json(config)
    return titled


def _stage(name: str) -> str:
    return tr("stage %(name)s", name=name)
