"""``overview.html``: the whole run on one self-contained page, for a desktop and a phone."""

from __future__ import annotations

import csv
import json
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from signstreams.engine.experiment import commit, versions
from signstreams.files import write_text
from signstreams.formats.crops import CropReader
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.strip import clip_strip
from signstreams.markup import (
    article,
    cards,
    code,
    document,
    embedded,
    fitting,
    marked,
    number,
    row,
    section,
    table,
    text,
)
from signstreams.progress import duration
from signstreams.publish.figures import (
    contract_figures,
    has_scores_of_another,
    percent,
    pretraining_figures,
    rounded,
    translation_figures,
)
from signstreams.streams import STREAMS

# What the jobs of the workflow took, from the benchmark files that Snakemake writes beside their logs.

SUFFIX = ".benchmark.tsv"


@dataclass(frozen=True)
class Runtime:
    """Jobs of one kind.

    Attributes:
        name: Of the rule's logs: ``extract``, or ``pretrain hand_r`` where each job has a name that says something.
        num_jobs: Jobs counted.
        total_s: Wall time of all of them.
        median_s: Wall time of the one in the middle.
        longest_s: Wall time of the longest.
        cpu_s: Processor time of all of them.
        memory_mb: The most that one of them held.
    """

    name: str
    num_jobs: int
    total_s: float
    median_s: float
    longest_s: float
    cpu_s: float
    memory_mb: float


def read_runtimes(logs: Path, per_video: Iterable[str] = ("demo", "extract")) -> list[Runtime]:
    """Runtimes by kind of job, the longest in all first.

    Args:
        logs: Folder of the logs.
        per_video: Folders below it whose jobs are counted as one kind; elsewhere each job is told by itself.
    """
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for path in sorted(logs.rglob(f"*{SUFFIX}")):
        *folders, last = path.relative_to(logs).parts
        name = folders if folders and folders[0] in set(per_video) else [*folders, last.removesuffix(SUFFIX)]
        found[" ".join(name)] += _rows(path)
    runtimes = [_runtime(name, rows) for name, rows in found.items() if rows]
    return sorted(runtimes, key=lambda runtime: -runtime.total_s)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _runtime(name: str, rows: list[dict[str, str]]) -> Runtime:
    seconds = [_number(row, "s") for row in rows]
    return Runtime(
        name,
        len(rows),
        sum(seconds),
        statistics.median(seconds),
        max(seconds),
        sum(_number(row, "cpu_time") for row in rows),
        max(_number(row, "max_rss") for row in rows),
    )


def _number(row: dict[str, str], key: str) -> float:
    try:
        return float(row[key])
    except (KeyError, TypeError, ValueError):  # "NA" of a job that ended before it was measured
        return 0.0


# ``overview.html``: the whole run on one self-contained page, for a desktop and a phone.

PICTURE_PX = 1100
"""Width that pictures are reduced to; the files beside the backbones are larger."""
BROAD_PX = 900
"""Width from which on a picture stands alone in its row."""
MAX_TRANSLATIONS = 12

_PICTURES = {
    "curves.png": "loss and health",
    "neighbours.png": "nearest crops",
    "attention.png": "where the class token looks",
    "patches_pca.png": "patches by their main directions",
}

_PRETRAINING_HINT = (
    "k-NN: how often the nearest crops show the same handshape, where the truth is known; beside it the same network "
    "with random weights, and raw pixels. Good: the loss ends well below ln K (knowing nothing), the entropy of one "
    "crop's target lies below that of the batch, RankMe rises, and k-NN beats random weights. Bad: both entropies at "
    "ln K (nothing learned) or both near 0 (collapse)."
)
_CURVES_HINT = (
    "Loss, entropies, prototypes, k-NN where the truth is known, RankMe and learning rate over the steps of each "
    "stream; below each picture stands what good and bad look like."
)
_NEIGHBOURS_HINT = (
    "Left: a crop; beside it those of other videos that the backbone takes for the most alike. Good: the same "
    "handshape or mouth from other people. Bad: the same light, sleeve or background with any handshape."
)
_ATTENTION_HINT = (
    "Where the class token looks. Good: fingers, mouth, eyes, heads that differ. Bad: the border, or everything evenly."
)
_PATCHES_HINT = (
    "Patches by their three main directions, one colour scale for all crops. Good: a finger has its colour wherever "
    "it is, the background another. Bad: colours that follow the place in the crop or the light alone."
)
_TRANSLATION_HINT = (
    "BLEU-4, chrF and ROUGE-L: the higher the better; WER of glosses: the lower, and 100 says nothing was recognised. "
    "Blank video is what the text model alone can say: a model that sees must be far above it. Curves: good is val "
    "that falls with train; bad is val that rises while train falls."
)
_CLIPS_HINT = (
    "The first clips of the split, with frames of right hand, face and left hand; words that were said are green. "
    "Good: a wrong word in a sentence about the same thing. Bad: the same fluent sentence under different clips. The "
    "page translations.html has more of them, the worst first."
)
_RUNTIMES_HINT = (
    "Wall time and memory of the jobs, the longest first; where time went, and what a larger corpus will ask."
)
_SETTINGS_HINT = "What was asked for, and what it ran on: enough to run it again."


def write_overview(path: Path, root: Path, work_dir: Path, logs: Path, settings: Mapping[str, Any]) -> None:
    """Write the page of what is there; a stage that has not run is left out.

    Args:
        path: File to write.
        root: Corpus.
        work_dir: Backbones and translation model.
        logs: Logs of the workflow with their benchmark files.
        settings: Of the workflow, as given; shown as they are.
    """
    write_text(path, render_overview(root, work_dir, logs, settings))


def render_overview(root: Path, work_dir: Path, logs: Path, settings: Mapping[str, Any]) -> str:
    """HTML of the page, pictures inside; no scripts, no network, every text escaped."""
    is_outdated = has_scores_of_another(work_dir / "multistream_v9")
    return fitting(lambda quality: _render(root, work_dir, logs, settings, quality, is_outdated))


def _render(
    root: Path, work_dir: Path, logs: Path, settings: Mapping[str, Any], quality: int, is_outdated: bool
) -> str:
    corpus = contract_figures(CorpusLayout(root))
    found = {stream: pretraining_figures(work_dir / f"dino_{stream}") for stream in STREAMS}
    backbones = {stream: figures for stream, figures in found.items() if figures is not None}
    folder = work_dir / "multistream_v9"
    scores = None if is_outdated else translation_figures(folder)
    runtimes = read_runtimes(logs) if logs.is_dir() else []
    unscored = "Not scored yet: scores.json is of another best.pt." if is_outdated else "No model was trained yet."
    scored = _scores(scores, folder, quality)
    said = "" if is_outdated else _translations(folder / "predictions.csv", CorpusLayout(root), quality)
    parts = [
        "<h1>What the run made</h1>",
        f'<div class="soft">{escape(str(root))} → {escape(str(work_dir))}</div>',
        _cards(corpus, backbones, scores),
        section("Backbones", _backbones(backbones), hint=_PRETRAINING_HINT, otherwise="None was pretrained yet."),
        section("Curves", _pictures(work_dir, backbones, "curves.png", quality), hint=_CURVES_HINT),
        section("Nearest crops", _pictures(work_dir, backbones, "neighbours.png", quality), hint=_NEIGHBOURS_HINT),
        section("Attention", _pictures(work_dir, backbones, "attention.png", quality), hint=_ATTENTION_HINT),
        section("Patches", _pictures(work_dir, backbones, "patches_pca.png", quality), hint=_PATCHES_HINT),
        section("Translation", scored, hint=_TRANSLATION_HINT, otherwise=unscored),
        section("Translations", said, hint=_CLIPS_HINT),
        section("Runtimes", _runtimes(runtimes), hint=_RUNTIMES_HINT),
        section("Versions and settings", _settings(settings, backbones, folder), hint=_SETTINGS_HINT),
    ]
    return document("signstreams: what the run made", parts)


def _cards(
    corpus: Mapping[str, Any] | None, backbones: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Any] | None
) -> str:
    shown = []
    if corpus is not None:
        shown += [
            (f"{corpus['num_videos']:,}", "videos"),
            (duration(corpus["duration_s"]), "of video"),
            (f"{corpus['num_clips']:,}", "clips"),
            (corpus["verdict"], "data contract"),
        ]
    shown.append((f"{len(backbones)} of {len(STREAMS)}", "backbones"))
    if scores is not None:
        shown.append((f"{scores['bleu_4']:.1f}", f"BLEU-4 ({scores['split']})"))
        if "gloss" in scores:
            shown.append((f"{scores['gloss']['wer']:.1f}", "gloss WER"))
    return cards(shown)


def _backbones(backbones: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [_backbone_row(stream, figures) for stream, figures in backbones.items()]
    header = (
        "stream",
        "k-NN",
        "random",
        "pixels",
        "loss",
        "ln K",
        "entropy: crop",
        "batch",
        "RankMe",
        "steps",
        "crops",
        "architecture",
    )
    return table(header, rows, len(rows))


def _backbone_row(stream: str, figures: Mapping[str, Any]) -> str:
    last, params = figures["last"], figures["params"]
    knn = figures.get("knn", {}).get("accuracy", {})
    return row(
        code(stream),
        *(number(percent(knn.get(name))) for name in ("pretrained", "random_weights", "raw_pixels")),
        number(rounded(last.get("train/loss_dino"))),
        number(rounded(params["ln_num_prototypes"])),
        number(rounded(last.get("teacher/entropy_sample"))),
        number(rounded(last.get("teacher/entropy_batch"))),
        number(rounded(last.get("probe/rankme"), 1)),
        number(f"{last['step']:,}"),
        number(f"{params['data']['train_crops']:,}"),
        text(params["architecture"].partition(" (")[0]),  # its sizes stand with the settings
    )


def _pictures(work_dir: Path, streams: Iterable[str], name: str, quality: int) -> str:
    figures = (
        _figure(work_dir / f"dino_{stream}" / name, f"{stream}: {_PICTURES[name]}", quality) for stream in streams
    )
    body = "".join(figures)
    return f'<div class="previews">{body}</div>' if body else ""


def _figure(path: Path, caption: str, quality: int) -> str:
    """A picture inside the page, reduced, and alone in its row where it is broad; nothing where there is none."""
    import cv2

    image = cv2.imread(str(path)) if path.is_file() else None  # (H, W, 3)
    if image is None:
        return ""
    height_px, width_px = image.shape[:2]
    if width_px > PICTURE_PX:
        height_px, width_px = round(height_px * PICTURE_PX / width_px), PICTURE_PX
        image = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA)
    shown = embedded(image, quality, caption)
    kind = "drawn wide" if width_px > BROAD_PX else "drawn"
    return f'<figure class="{kind}"><figcaption>{escape(caption)}</figcaption>{shown}</figure>'


def _scores(scores: Mapping[str, Any] | None, folder: Path, quality: int) -> str:
    if scores is None:
        return ""
    sets = {f"{scores['split']} split": scores, "blank video": scores.get("baselines", {}).get("blank_video")}
    rows = [
        row(
            text(name),
            number(found["num_clips"]),
            *(number(rounded(found.get(key), 1)) for key in ("bleu_1", "bleu_4", "chrf", "rouge_l")),
            number(rounded(found.get("gloss", {}).get("wer"), 1)),
        )
        for name, found in sets.items()
        if found
    ]
    body = table(("", "clips", "BLEU-1", "BLEU-4", "chrF", "ROUGE-L", "gloss WER"), rows, len(rows))
    return (
        body
        + f'<div class="previews">{_figure(folder / "curves.png", "training of the translation model", quality)}</div>'
    )


def _translations(path: Path, layout: CorpusLayout, quality: int) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", newline="") as file:
        clips = list(csv.DictReader(file))
    clips = [clip for clip in clips if clip["split"] == "test"] or clips
    reader = CropReader()
    try:
        return "\n".join(_clip(clip, layout, reader, quality) for clip in clips[:MAX_TRANSLATIONS])
    finally:
        reader.close()


def _clip(clip: Mapping[str, str], layout: CorpusLayout, reader: CropReader, quality: int) -> str:
    said = {"said": escape(clip["reference"]), "model": marked(clip["hypothesis"], clip["reference"])}
    if clip.get("gloss_reference"):
        said["glosses"] = escape(clip["gloss_reference"])
        said["recognised"] = marked(clip["gloss_hypothesis"], clip["gloss_reference"])
    picture = ""
    if clip.get("video_id"):  # an evaluation of before did not say where its clips lie
        frames = range(int(clip["first_frame"]), int(clip["last_frame"]) + 1)
        picture = embedded(clip_strip(layout, clip["video_id"], frames, reader), quality, "frames of the clip")
    return article(picture, clip["clip_id"], said)


def _runtimes(runtimes: list[Runtime]) -> str:
    longest_s = max((runtime.total_s for runtime in runtimes), default=0.0) or 1.0
    rows = [
        row(
            text(runtime.name),
            _bar(runtime.total_s / longest_s),
            number(runtime.num_jobs),
            number(duration(runtime.total_s)),
            number(duration(runtime.median_s)),
            number(duration(runtime.longest_s)),
            number(duration(runtime.cpu_s)),
            number(f"{runtime.memory_mb:,.0f} MB"),
        )
        for runtime in runtimes
    ]
    return table(("job", "", "jobs", "in all", "median", "longest", "CPU time", "memory"), rows, len(rows))


def _bar(share: float) -> str:
    return f'<td><div class="bar"><i class="detected" style="width:{100 * share:.1f}%"></i></div></td>'


def _settings(settings: Mapping[str, Any], backbones: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    ran_on = {"machine": f"{platform.machine()}, {platform.system()} {platform.release()}"}
    ran_on |= versions() | ({"commit": found} if (found := commit()) else {})
    rows = [row(text(name), code(value)) for name, value in ran_on.items()]
    blocks = [table(("", "version"), rows, len(rows)), _details("workflow", settings)]
    blocks += [
        _details(
            f"pretraining of {stream}", {key: figures["params"].get(key) for key in ("config", "chosen", "versions")}
        )
        for stream, figures in backbones.items()
    ]
    if (folder / "config.json").is_file():
        blocks.append(_details("translation model", json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    return "\n".join(blocks)


def _details(name: str, content: Mapping[str, Any]) -> str:
    shown = escape(json.dumps(content, indent=2, ensure_ascii=False))
    return f'<details><summary>{escape(name)}</summary><div class="scroll"><pre>{shown}</pre></div></details>'
