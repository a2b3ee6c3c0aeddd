"""The release bundle: what another group needs to use, judge and repeat a run, in one folder with checksums."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from signstreams.engine.run_folder import commit, versions
from signstreams.errors import UserError
from signstreams.files import read_json, sha256_file, write_json, write_text
from signstreams.formats.layout import (
    BOUNDARY_FILES,
    CURVES,
    EVALUATION_FILES,
    GLOSSES,
    JUDGE_FILES,
    METRICS,
    PRETRAINING_FILES,
    TRAINING_FILES,
    CorpusLayout,
    RunLayout,
)
from signstreams.pages.render import percent, rounded
from signstreams.progress import duration
from signstreams.publish.figures import (
    contract_figures,
    has_scores_of_another,
    judged,
    pretraining_figures,
    scores_text,
    stage_figures,
    thinned,
    translation_figures,
)
from signstreams.publish.settings import ReleaseConfig
from signstreams.streams import BY_NAME, STREAMS

SUMS = "SHA256SUMS"
_VERSIONS = Path("environment", "versions.json")
_BACKBONE_FILES = (
    *(PRETRAINING_FILES[name] for name in ("backbone", "safetensors", "card", "params", "curves")),
    *JUDGE_FILES.values(),
)
_MODEL_FILES = (
    *(TRAINING_FILES[name] for name in ("best", "tokenizer", "config", "curves")),
    GLOSSES,
    EVALUATION_FILES["scores"],
)
_STAGE_FILES = tuple(TRAINING_FILES[name] for name in ("config", "curves"))  # the model has their weights
_TIMM = "timm::"
_ENVIRONMENT_FILES = ("requirements.lock", "environment.yml", "pyproject.toml")


def write_release(config: ReleaseConfig, project: Path) -> list[Path]:
    """Write the bundle aside, then exchange it for an older one; ``project`` is the checkout with the lock files.

    Pictures of people (nearest crops, attention, translations.html, overview.html) stay out. Returns its files, sorted,
    relative to the folder.

    Raises:
        UserError: There is nothing to release, the folder holds something else, or scores or backbones are not those
            of the translation model.
    """
    folder, runs = config.target(), RunLayout(config.work_dir)
    backbones = [stream for stream in STREAMS if runs.backbone(stream).is_file()]
    if not backbones:
        raise UserError(
            f"{runs.backbone('<stream>')}: found none, expected at least one; run `snakemake pretrain_all` first"
        )
    needed = _needed_backbones(runs) if runs.training_file("best").is_file() else None
    if folder.exists() and not _is_replaceable(folder):
        raise UserError(f"{folder}: is not a release (it has no {SUMS}) and is not replaced; give another --output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
        new = Path(aside) / folder.name
        for stream in backbones:
            _copy(runs.pretraining(stream), new / "backbones" / stream, _BACKBONE_FILES, config.metrics_lines)
        if needed is not None:
            more = (EVALUATION_FILES["predictions"],) if config.predictions else ()
            _copy(runs.training, new / "translation", (*_MODEL_FILES, *more), config.metrics_lines)
            _copy(runs.boundaries, new / "translation", tuple(BOUNDARY_FILES.values()), config.metrics_lines)
            for stage in stage_figures(runs) if needed is not None else ():
                _copy(runs.stage(stage), new / "stages" / stage, _STAGE_FILES, config.metrics_lines)
        for name in _ENVIRONMENT_FILES:
            with contextlib.suppress(FileNotFoundError):
                _put(project / name, new / "environment" / name)
        write_json(new / _VERSIONS, {**versions(), "commit": commit()})
        write_json(new / "workflow.json", config.shown_settings())
        if (corpus := contract_figures(CorpusLayout(config.root))) is not None:
            write_json(new / "corpus.json", corpus)
        write_text(new / "README.md", _readme(runs, backbones, corpus, needed))
        files = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
        write_text(new / SUMS, "".join(f"{sha256_file(new / path)}  {path.as_posix()}\n" for path in files))
        new.chmod(0o755)
        _exchange(new, folder, Path(aside) / "old")
    return [*files, Path(SUMS)]


def _needed_backbones(runs: RunLayout) -> dict[str, str]:
    """Stream of the translation model to the digest of its backbone file, or to its ``timm::`` spec.

    Raises:
        UserError: The run does not say, its scores are of another model, or a backbone is not the one it used.
    """
    config, model = runs.training_file("config"), runs.training_file("best")
    try:
        needed: dict[str, str] = read_json(config)["backbone_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{config}: does not name the backbones of best.pt, expected what its training wrote; train it again, which"
            " ends at once where nothing changed"
        ) from None
    problems = []
    if has_scores_of_another(runs):
        problems.append(
            f"{runs.evaluation_file('scores')}: is of another model, expected scores of the best.pt beside it; evaluate"
            " it (scripts/evaluate_slt.py)"
        )
    if (report := _boundary_report(runs)) is not None and report.get("checkpoint_sha256") != sha256_file(model):
        problems.append(
            f"{runs.boundary_file('model')}: was trained beside another model, expected one of the best.pt in"
            f" {runs.training}; train it again (`snakemake boundaries`), or remove {runs.boundaries}"
        )
    for stream, digest in needed.items():
        path = runs.backbone(stream)
        if path.is_file() and not digest.startswith(_TIMM) and (found := sha256_file(path)) != digest:
            problems.append(
                f"{path}: its SHA-256 is {found[:12]}, but {model} was trained with {digest[:12]}; train the"
                " translation model again, or put that backbone there"
            )
    if problems:
        raise UserError(problems)
    return needed


def _boundary_report(runs: RunLayout) -> dict[str, Any] | None:
    """What `boundaries.json` says; None where no boundary model was trained."""
    if not runs.boundary_file("model").is_file():
        return None
    with contextlib.suppress(OSError, ValueError):
        if isinstance(report := read_json(runs.boundary_file("report")), dict):
            return report
    return {}


def _copy(source: Path, target: Path, names: tuple[str, ...], metrics_lines: int) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # a corpus without glosses, a stream without known truth
            _put(source / name, target / name)
    if (params := target / PRETRAINING_FILES["params"]).is_file():  # the name of a machine is nobody's business
        write_json(params, {**read_json(params), "host": None})
    if (source / METRICS).is_file():
        write_text(target / METRICS, "".join(f"{line}\n" for line in thinned(source / METRICS, metrics_lines)))


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _is_replaceable(folder: Path) -> bool:
    """An older release, or an empty folder. Snakemake removes the checksums, its output, before it runs the rule."""
    if not folder.is_dir():
        return False
    return (folder / SUMS).is_file() or (folder / _VERSIONS).is_file() or not any(folder.iterdir())


def _exchange(new: Path, folder: Path, old: Path) -> None:
    if folder.exists():
        folder.replace(old)
    try:
        new.replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        raise


def _readme(
    runs: RunLayout, backbones: list[str], corpus: Mapping[str, Any] | None, needed: Mapping[str, str] | None
) -> str:
    lines = ["# A run of signstreams", ""]
    if corpus is not None:
        lines += [
            f"Trained on {corpus['num_videos']:,} videos, {duration(corpus['duration_s'])},"
            f" {corpus['num_frames']:,} frames, {corpus['num_clips']:,} clips with text.",
            "",
        ]
    lines += [
        "| stream | architecture | crops | steps | loss | ln K | RankMe | k-NN | first weights |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for stream in backbones:
        lines.append(_backbone_line(stream, pretraining_figures(runs, stream)))
    lines += [
        "",
        "Loss: ln K is that of knowing nothing. RankMe: directions that the features use. k-NN: how often the nearest"
        " crops of other videos show the same handshape or mouth, where the truth is known; beside it the same network"
        " before its training. `judge.csv` in the folder of a backbone has more.",
    ]
    if needed is not None and (scores := translation_figures(runs)) is not None:
        clips = f"{scores['num_clips']} clips of the {scores['split']} split"
        lines += ["", f"Translation, {clips}: {scores_text(scores)}."]
        if blank := scores.get("baselines", {}).get("blank_video"):
            lines.append(f"With blank video, what the text model alone can say: BLEU-4 {blank['bleu_4']:.1f}.")
    stages = stage_figures(runs) if needed is not None else {}
    if stages:
        lines += ["", f"Started from {'; '.join(f'{stage}: {scores}' for stage, scores in stages.items())}."]
    stream = backbones[0]
    model_files = "model, tokenizer, settings, scores, curves"
    if _boundary_report(runs) is not None:
        model_files += ", boundary model"
    lines += [
        "",
        "| folder | holds |",
        "| --- | --- |",
        "| `backbones/<stream>/` | weights (`.pt`, `.safetensors`), model card, settings, metrics (extract), curves |",
        *([f"| `translation/` | {model_files} |"] if needed is not None else []),
        *(
            ["| `stages/<stage>/` | settings, metrics (extract), curves of what the model started from |"]
            if stages
            else []
        ),
        "| `environment/` | versions and lock files |",
        f"| `workflow.json`, `corpus.json`, `{SUMS}` | settings of the workflow, size of the corpus, checksums |",
        "",
        f"Check it: `sha256sum -c {SUMS}`. Load a backbone:",
        "",
        "```python",
        "from signstreams.backbones.weights import load_dinov2_backbone",
        "",
        f'backbone = load_dinov2_backbone("file::backbones/{stream}/backbone.pt")',
        "```",
        "",
        *(_how_to_translate(backbones, needed) if needed is not None else []),
        "## Curves",
        "",
        *_curves(runs, backbones),
        "Pictures of people are left out on purpose. Weights may still reveal something of the people they were trained"
        " on: read the model cards, and release only what the signers agreed to.",
        "",
    ]
    return "\n".join(lines)


def _how_to_translate(backbones: list[str], needed: Mapping[str, str]) -> list[str]:
    """The command, with the backbones of the model's own streams; those that are not in the bundle are named."""
    flags = {stream: BY_NAME[stream].backbone_flag for stream in needed}
    words = [
        f"{flags[stream]} file::release/backbones/{stream}/backbone.pt"
        for stream, digest in needed.items()
        if stream in backbones and not digest.startswith(_TIMM)
    ]
    if any(digest.startswith(_TIMM) for digest in needed.values()):
        words.append("--model-download")
    absent = [
        f"Its backbone of {stream} is not in this folder (SHA-256 {digest}): say where it is with"
        f" `{flags[stream]} file::PATH`."
        for stream, digest in needed.items()
        if stream not in backbones and not digest.startswith(_TIMM)
    ]
    return [
        "Translate a video (from a checkout of signstreams; this folder as `release`):",
        "",
        "    python scripts/translate_video.py video.mp4 --checkpoint release/translation/best.pt"
        + "".join(f" \\\n        {word}" for word in words),
        "",
        *(line for sentence in absent for line in (sentence, "")),
    ]


def _curves(runs: RunLayout, backbones: list[str]) -> list[str]:
    """Pictures of the bundle, by their places in it."""
    places = {f"backbones/{stream}": runs.pretraining(stream) for stream in backbones}
    places |= {f"stages/{stage}": runs.stage(stage) for stage in stage_figures(runs)}
    places["translation"] = runs.training
    shown = [place for place, folder in places.items() if (folder / CURVES).is_file()]
    return [line for place in shown for line in (f"![{place}]({place}/{CURVES})", "")]


def _backbone_line(stream: str, figures: Mapping[str, Any] | None) -> str:
    if figures is None:  # weights alone, as of another's run
        return f"| {stream} |{' – |' * 8}"
    last, params = figures["last"], figures["params"]
    knn = judged(figures)
    values = [
        params["architecture"],
        f"{params['data']['train_crops']:,}",
        f"{last['step']:,}",
        rounded(last.get("train/loss_dino")),
        rounded(params["ln_num_prototypes"]),
        rounded(last.get("probe/rankme")),
        *(percent(knn.get(name)) for name in ("backbone", "first weights")),
    ]
    return f"| {stream} | {' | '.join(values)} |"
