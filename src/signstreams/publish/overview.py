"""``overview.html``: the whole run on one self-contained page, for a desktop and a phone."""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from signstreams.engine.run_folder import commit, versions
from signstreams.files import read_json
from signstreams.formats.crops import CropReader, clip_strip
from signstreams.formats.layout import JUDGE_FILES, PRETRAINING_FILES, CorpusLayout, RunLayout
from signstreams.pages.render import ShownClip, render
from signstreams.publish.figures import (
    contract_figures,
    has_scores_of_another,
    judged,
    pretraining_figures,
    read_runtimes,
    stage_figures,
    translation_figures,
)
from signstreams.streams import STREAMS

PICTURE_PX = 1100  # width that pictures are reduced to; the files beside the backbones are larger
BROAD_PX = 900  # A picture broader than this is alone in its row
MAX_TRANSLATIONS = 12

_PICTURES = {
    "curves": "loss and health",
    "judge": "right answers",
    "neighbours": "nearest crops",
    "attention": "where the class token looks",
    "patches": "patches by their main directions",
}
"""Picture of a pretraining, a key of `formats.layout.PRETRAINING_FILES` or `JUDGE_FILES`, to its caption."""


def render_overview(root: Path, work_dir: Path, logs: Path, settings: Mapping[str, Any]) -> str:
    """HTML of the page; a stage that has not run is left out. The workflow's ``settings`` are shown as they are."""
    runs = RunLayout(work_dir)
    found = {stream: pretraining_figures(runs, stream) for stream in STREAMS}
    backbones = {stream: figures for stream, figures in found.items() if figures is not None}
    is_outdated, stages = has_scores_of_another(runs), stage_figures(runs)
    return render(
        "overview.html",
        root=root,
        work_dir=work_dir,
        corpus=contract_figures(CorpusLayout(root)),
        num_streams=len(STREAMS),
        backbones=backbones,
        knn={stream: judged(figures) for stream, figures in backbones.items()},
        pictures={
            name: _pictures(
                (runs.pretraining(stream) / (PRETRAINING_FILES | JUDGE_FILES)[name], f"{stream}: {caption}")
                for stream in backbones
            )
            for name, caption in _PICTURES.items()
        },
        broad_px=BROAD_PX,
        is_outdated=is_outdated,
        scores=None if is_outdated else translation_figures(runs),
        training_curves=_pictures(
            [
                *((runs.stage_file(name, "curves"), f"stage {name}: {text}") for name, text in stages.items()),
                (runs.training_file("curves"), "training of the translation model"),
            ]
        ),
        clips=[] if is_outdated else _clips(runs.evaluation_file("predictions"), CorpusLayout(root)),
        runtimes=read_runtimes(logs),
        ran_on=_ran_on(),
        all_settings=_settings(settings, backbones, runs),
    )


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
    machine = {"machine": f"{platform.machine()}, {platform.system()} {platform.release()}"}
    return machine | versions() | ({"commit": found} if (found := commit()) else {})


def _settings(settings: Mapping[str, Any], backbones: Mapping[str, Any], runs: RunLayout) -> dict[str, Any]:
    """Title to settings: of the workflow, of each pretraining, of the translation model."""
    titled = {"workflow": settings}
    for stream, figures in backbones.items():
        params = figures["params"]
        titled[f"pretraining of {stream}"] = {key: params.get(key) for key in ("config", "chosen", "versions")}
    titled |= {f"stage {stage}": read_json(runs.stage_file(stage, "config")) for stage in stage_figures(runs)}
    if (config := runs.training_file("config")).is_file():
        titled["translation model"] = read_json(config)
    return titled
