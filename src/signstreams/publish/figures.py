"""The figures of a run, read from the files that its stages left, and a summary of them for the terminal."""

from __future__ import annotations

import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signstreams.engine.metrics import read_metrics
from signstreams.files import read_json, sha256_file
from signstreams.formats.layout import FIRST_STAGES, CorpusLayout, RunLayout
from signstreams.language import grouped, plural, tr, translated
from signstreams.pages.render import percent, rounded
from signstreams.publish.verdict import DemoRange, Sentence, verdict
from signstreams.streams import STREAMS

PRETRAINED = ("backbone", "params", "history")  # files of a pretraining that its figures are read from
BENCHMARK_SUFFIX = ".benchmark.tsv"
PER_VIDEO = (["demo"], ["extract"])  # folders of logs whose jobs count as one kind; elsewhere each job is its own kind


# -- Figures of the stages; None where one has not run


def contract_figures(layout: CorpusLayout) -> dict[str, Any] | None:
    """Summary of the contract's report, its verdict, its streams; ``signers``: video to its first signer, or None."""
    if not layout.report.is_file():
        return None
    report = read_json(layout.report)
    # older reports name none
    signers = {video["video_id"]: next(iter(video.get("signers", ())), None) for video in report["videos"]}
    return {"verdict": report["verdict"], **report["summary"], "streams": report["streams"], "signers": signers}


def pretraining_figures(runs: RunLayout, stream: str) -> dict[str, Any] | None:
    """Last value of each metric, ``params`` of the run, and ``judge`` where labels are known, see `judge_figures`.

    ``is_judge_of_another``: there is a judge.json, but it is not known to be of this backbone. None also where weights
    are alone in the folder, such as another's. A value that was not finite is None.
    """
    if not all(runs.pretraining_file(stream, name).is_file() for name in PRETRAINED):
        return None
    last: dict[str, Any] = {}
    for record in read_metrics(runs.pretraining_file(stream, "history")):
        last |= record
    found = {"params": read_json(runs.pretraining_file(stream, "params")), "last": last}
    if (judge := judge_figures(runs, stream)) is not None:
        found["judge"] = judge
    found["is_judge_of_another"] = judge is None and runs.judge_file(stream, "report").is_file()
    return found


def judge_figures(runs: RunLayout, stream: str) -> dict[str, Any] | None:
    """Content of judge.json with the rows of the backbone.pt beside it, of its first weights and of what needs none.

    Other backbones may have been judged in the same call. None where there is no report, or none that is known to be
    of this file.
    """
    path = runs.judge_file(stream, "report")
    if not path.is_file():
        return None
    report: dict[str, Any] = read_json(path)
    own = _rows_of(runs.backbone(stream), report)
    if not own:
        return None
    kept = {row["name"] for row in own} | {name for row in own for name in row.get("differences", {})}
    rows = [row for row in report["rows"] if row["kind"] in ("public", "free") or row["name"] in kept]
    return report | {"rows": rows}


def _rows_of(backbone: Path, report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    digests = {row["sha256"] for row in report["rows"] if "sha256" in row}  # older reports have none
    digest = sha256_file(backbone) if digests and backbone.is_file() else None
    return [row for row in report["rows"] if digest is not None and row.get("sha256") == digest]


def has_judge_of_another(runs: RunLayout, stream: str) -> bool:
    """Whether judge.json is of another backbone than the one beside it; False where it does not say."""
    path = runs.judge_file(stream, "report")
    if not path.is_file():
        return False
    report = read_json(path)
    return any("sha256" in row for row in report["rows"]) and not _rows_of(runs.backbone(stream), report)


def judged(figures: Mapping[str, Any] | None) -> dict[str, float]:
    """k-NN accuracy, in other videos, of the backbone and of what it is compared with; empty where it was not judged.

    Class tokens of the networks; the keys are ``backbone``, ``first weights`` and the names of what costs nothing.
    """
    rows = (figures or {}).get("judge", {}).get("rows", [])
    found: dict[str, float] = {}
    for row in rows:
        found.setdefault(row["name"] if row["kind"] == "free" else row["kind"], row["scores"]["split"]["knn"]["value"])
    return found


def sequence_figures(runs: RunLayout) -> dict[str, float] | None:
    """Scores on val of the sequence pretraining's best.pt, and its step: ``accuracy`` beside ``majority`` and
    ``repeat``, two guesses, all 0..1. None where there is none.
    """
    record = _record_of_best(runs.sequence_file("best"), runs.sequence_file("history"))
    if not record:
        return None
    return {key.removeprefix("val/"): value for key, value in record.items() if key == "step" or key.startswith("val/")}


def _record_of_best(best: Path, history: Path) -> dict[str, Any] | None:
    """The evaluation that chose a run's best.pt; empty where the history has none, None where there is no such run."""
    if not (best.is_file() and history.is_file()):
        return None
    return next((record for record in reversed(read_metrics(history)) if record.get("val/is_best")), {})


def starts_from_sequence(runs: RunLayout) -> bool:
    """Whether the translation model's first weights are those of a sequence pretraining."""
    config = runs.training_file("config")
    return config.is_file() and read_json(config).get("train", {}).get("sequence_checkpoint") is not None


def translation_figures(runs: RunLayout) -> dict[str, Any] | None:
    """Content of scores.json."""
    scores = runs.evaluation_file("scores")
    return read_json(scores) if scores.is_file() else None


def stage_figures(runs: RunLayout) -> dict[str, str]:
    """Stage that the translation model started from to the scores of its best.pt on val, in one line."""
    found = {}
    for stage in FIRST_STAGES:
        record = _record_of_best(runs.stage_file(stage, "best"), runs.stage_file(stage, "history"))
        if record is not None:
            found[stage] = _stage_scores(record) if record else tr("no scores")
    return found


def _stage_scores(record: Mapping[str, Any]) -> str:
    rates = [value for key, value in record.items() if key.startswith("val/wer_")]
    shown = [f"BLEU-4 {record['val/bleu_4']:.1f}"] if "val/bleu_4" in record else []
    shown += [f"{tr('retrieval')} {record['val/retrieval']:.1f} %"] if "val/retrieval" in record else []
    if not shown and "val/loss_restoration" in record:
        shown.append(f"{tr('restoration loss')} {record['val/loss_restoration']:.2f}")
    shown += [f"{tr('gloss WER')} {min(rates):.1f}"] if rates else []
    return tr("%(scores)s on val, step %(step)s", scores=", ".join(shown), step=grouped(record["step"]))


def has_scores_of_another(runs: RunLayout) -> bool:
    """Whether scores.json is of another best.pt than the one beside it; False where it does not say."""
    scores, model = runs.evaluation_file("scores"), runs.training_file("best")
    if not (scores.is_file() and model.is_file()):
        return False
    expected = read_json(scores).get("checkpoint_sha256")  # older evaluations did not record it
    return expected is not None and sha256_file(model) != expected


DEMO_RANGE = Path(__file__).with_name("demo_range.json")


def demo_range() -> DemoRange | None:
    """The recorded range of the demo's scores; None where none was recorded since its corpus or recipe changed."""
    if not DEMO_RANGE.is_file():
        return None
    content = read_json(DEMO_RANGE)
    return DemoRange(content["counts"], tuple(content["bleu_4"]), tuple(content["wer"]), content["runs"])


def verdict_of_run(root: Path, work_dir: Path) -> list[Sentence]:
    """The verdict on what is there of a run."""
    runs = RunLayout(work_dir)
    return verdict(
        contract_figures(CorpusLayout(root)),
        {stream: figures for stream in STREAMS if (figures := pretraining_figures(runs, stream)) is not None},
        translation_figures(runs),
        is_outdated=has_scores_of_another(runs),
        expected=demo_range(),
    )


# -- Runtimes, from the benchmark files that Snakemake writes beside the logs


@dataclass(frozen=True)
class Runtime:
    """Jobs of one kind."""

    name: str  # ``extract``, or ``pretrain hand_r`` where a job counts as a kind of its own
    num_jobs: int
    total_s: float  # wall time, as the next two
    median_s: float
    longest_s: float
    cpu_s: float  # processor time of all of them
    memory_mb: float  # the most that one of them used


def read_runtimes(logs: Path) -> list[Runtime]:
    """Runtimes by kind of job, the longest in total first; none without the folder of the logs."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for path in sorted(logs.rglob(f"*{BENCHMARK_SUFFIX}")):
        *folders, last = path.relative_to(logs).parts
        name = folders if folders[:1] in PER_VIDEO else [*folders, last.removesuffix(BENCHMARK_SUFFIX)]
        with path.open(encoding="utf-8", newline="") as file:
            found[" ".join(name)] += csv.DictReader(file, delimiter="\t")
    runtimes = [_runtime(name, rows) for name, rows in found.items() if rows]
    return sorted(runtimes, key=lambda runtime: -runtime.total_s)


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


def thinned(path: Path, most: int) -> list[str]:
    """Lines of a metrics log, spread evenly where there are more than ``most``; evaluations and probes all stay."""
    records = read_metrics(path)
    stride = max(1, -(-len(records) // most))
    kept = [
        record
        for place, record in enumerate(records)
        if place % stride == 0 or place == len(records) - 1 or any(key.startswith(("val/", "probe/")) for key in record)
    ]
    return [json.dumps(record, ensure_ascii=False) for record in kept]


# -- The summary


def summarize(root: Path, work_dir: Path) -> list[str]:
    """Lines for a person, the verdict below them; a stage that has not run yet is reported as missing."""
    runs = RunLayout(work_dir)
    lines = _contract(CorpusLayout(root))
    for stream in STREAMS:
        lines += _pretraining(runs, stream)
    if (sequence := sequence_figures(runs)) is not None:
        text = tr("%(scores)s on val", scores=sequence_text(sequence))
        lines.append(_line(tr("sequence"), f"{text}; {runs.sequence_file('best')}"))
    lines += [
        _line(stage, f"{scores}; {runs.stage_file(stage, 'best')}") for stage, scores in stage_figures(runs).items()
    ]
    lines.append(_line(tr("translation"), _translation(runs)))
    grades = {"good": tr("good"), "unclear": tr("unclear"), "bad": tr("bad")}
    lines += [_line(grades[sentence.grade], sentence.text) for sentence in verdict_of_run(root, work_dir)]
    if runs.overview.is_file():
        lines.append(_line(tr("all of it"), str(runs.overview)))
    return lines


def _line(about: str, text: str) -> str:
    return f"{about:<11} {text}"


def _contract(layout: CorpusLayout) -> list[str]:
    figures = contract_figures(layout)
    if figures is None:
        return [_line(tr("contract"), tr("not there yet: %(file)s", file=layout.report))]
    videos = plural("%(num)s video", "%(num)s videos", figures["num_videos"])
    clips = plural("%(num)s clip", "%(num)s clips", figures["num_clips"])
    frames = plural("%(num)s frame", "%(num)s frames", figures["num_frames"])
    text = tr("%(counts)s; look at %(page)s", counts=f"{videos}, {clips}, {frames}", page=layout.report_page)
    return [_line(tr("contract"), text)]


def _pretraining(runs: RunLayout, stream: str) -> list[str]:
    figures = pretraining_figures(runs, stream)
    if figures is None:
        absent = next(path for key in PRETRAINED if not (path := runs.pretraining_file(stream, key)).is_file())
        return [_line(stream, tr("not there yet: %(file)s", file=absent))]
    last = figures["last"]
    loss, of_crop, of_batch = (
        rounded(last.get(key)) for key in ("train/loss_dino", "teacher/entropy_sample", "teacher/entropy_batch")
    )
    text = tr(
        "loss %(loss)s (ln K %(ln_k)s), teacher entropy %(of_crop)s per crop, %(of_batch)s per batch",
        loss=loss,
        ln_k=f"{figures['params']['ln_num_prototypes']:.2f}",
        of_crop=of_crop,
        of_batch=of_batch,
    )
    lines = [_line(stream, f"{text}; {runs.backbone(stream)}, {runs.pretraining_file(stream, 'curves')}")]
    if found := judged(figures):
        knn = ", ".join(f"{translated(name)} {100 * value:.1f} %" for name, value in found.items())
        lines.append(_line("", f"k-NN: {knn}; {runs.judge_file(stream, 'judge')}"))
    if figures["is_judge_of_another"]:
        text = tr(
            "not judged yet: %(file)s is not known to be of this backbone.pt; run signstreams evaluate-backbone again",
            file=runs.judge_file(stream, "report"),
        )
        lines.append(_line("", text))
    return lines


def _translation(runs: RunLayout) -> str:
    path = runs.evaluation_file("scores")
    scores = translation_figures(runs)
    if scores is None:
        return tr("not there yet: %(file)s", file=path)
    if has_scores_of_another(runs):
        return tr("not scored yet: %(file)s is of another best.pt; run signstreams evaluate", file=path)
    clips = plural(
        "%(num)s clip of %(split)s", "%(num)s clips of %(split)s", scores["num_clips"], split=scores["split"]
    )
    text = tr("%(scores)s on %(clips)s", scores=scores_text(scores), clips=clips)
    return f"{text}; {path}, {runs.evaluation_file('predictions')}"


def sequence_text(figures: Mapping[str, float]) -> str:
    """``"hidden steps predicted 44.0 % (nearest seen step 37.2 %, most frequent cluster 20.1 %)"``."""
    own, repeat, majority = (percent(figures.get(key)) for key in ("accuracy", "repeat", "majority"))
    return tr(
        "hidden steps predicted %(own)s (nearest seen step %(repeat)s, most frequent cluster %(majority)s)",
        own=own,
        repeat=repeat,
        majority=majority,
    )


def scores_text(scores: Mapping[str, Any]) -> str:
    """``"BLEU-4 12.3, chrF 33.1, ROUGE-L 30.2, gloss WER 41.0"``, as far as text and glosses are learned."""
    names = (("BLEU-4", "bleu_4"), ("chrF", "chrf"), ("ROUGE-L", "rouge_l"))
    shown = [f"{name} {scores[key]:.1f}" for name, key in names if key in scores]
    if "gloss" in scores:
        shown.append(f"{tr('gloss WER')} {scores['gloss']['wer']:.1f}")
    return ", ".join(shown)
