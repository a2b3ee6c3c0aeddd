"""The release bundle: what another group needs to use, judge and repeat a run, in one folder with checksums."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from signstreams.engine.run_folder import commit, versions
from signstreams.errors import UserError
from signstreams.files import read_json, sha256_file, write_json, write_text
from signstreams.formats.layout import (
    BOUNDARY_FILES,
    EVALUATION_FILES,
    GLOSSES,
    JUDGE_FILES,
    METRICS,
    PRETRAINING_FILES,
    SEQUENCE_FILES,
    TRAINING_FILES,
    CorpusLayout,
    RunLayout,
)
from signstreams.language import in_english
from signstreams.publish.figures import (
    contract_figures,
    has_judge_of_another,
    has_scores_of_another,
    judge_figures,
    sequence_figures,
    stage_figures,
    thinned,
)
from signstreams.publish.release_cards import SUMS, TIMM, complete_card, release_card
from signstreams.publish.settings import ReleaseConfig
from signstreams.streams import STREAMS

log = logging.getLogger(__name__)

_VERSIONS = Path("environment", "versions.json")
_BACKBONE_FILES = tuple(PRETRAINING_FILES[name] for name in ("backbone", "safetensors", "card", "params", "curves"))
_MODEL_FILES = (
    *(TRAINING_FILES[name] for name in ("best", "tokenizer", "config", "curves")),
    GLOSSES,
    EVALUATION_FILES["scores"],
)
_SEQUENCE_FILES = tuple(SEQUENCE_FILES[name] for name in ("best", "clusters", "config", "curves"))
_STAGE_FILES = tuple(TRAINING_FILES[name] for name in ("config", "curves"))  # the model has their weights
_ENVIRONMENT_FILES = ("requirements.lock", "environment.yml", "pyproject.toml")


@in_english()
def write_release(config: ReleaseConfig, project: Path) -> list[Path]:
    """Write the bundle aside, then exchange it for an older one; ``project`` is the checkout with the lock files.

    Pictures of people (nearest crops, attention, translations.html, overview.html) stay out. Returns its files, sorted,
    relative to the folder.

    Raises:
        UserError: There is nothing to release, the folder holds something else, scores or backbones are not those of
            the translation model, or a judge.json is not of the backbone beside it.
    """
    folder, runs = config.target(), RunLayout(config.work_dir)
    backbones = [stream for stream in STREAMS if runs.backbone(stream).is_file()]
    if not backbones:
        raise UserError(
            f"{runs.backbone('<stream>')}: found none, expected at least one; run `snakemake pretrain_all` first"
        )
    needed, problems = _needed_backbones(runs) if runs.training_file("best").is_file() else (None, [])
    problems += [_judge_of_another(runs, stream) for stream in backbones if has_judge_of_another(runs, stream)]
    if problems:
        raise UserError(problems)
    has_boundaries = needed is not None and _boundary_report(runs) is not None
    if folder.exists() and not _is_replaceable(folder):
        raise UserError(f"{folder}: is not a release (it has no {SUMS}) and is not replaced; give another --output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
        new = Path(aside) / folder.name
        for stream in backbones:
            target = new / "backbones" / stream
            names = (*_BACKBONE_FILES, *_judge_files(runs, stream))
            _copy(runs.pretraining(stream), target, names, config.metrics_lines)
            complete_card(target / PRETRAINING_FILES["card"], stream, runs, config)
        if sequence_figures(runs) is not None:
            _copy(runs.sequence, new / "sequence", _SEQUENCE_FILES, config.metrics_lines)
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
        write_text(new / "README.md", release_card(config, backbones, needed, has_boundaries=has_boundaries))
        files = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
        write_text(new / SUMS, "".join(f"{sha256_file(new / path)}  {path.as_posix()}\n" for path in files))
        new.chmod(0o755)
        _exchange(new, folder, Path(aside) / "old")
    return [*files, Path(SUMS)]


def _needed_backbones(runs: RunLayout) -> tuple[dict[str, str], list[str]]:
    """Stream of the translation model to the digest of its backbone file, or to its ``timm::`` spec.

    And problems: its scores are of another model, or a backbone is not the one it used.

    Raises:
        UserError: The run does not say.
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
            " it (signstreams evaluate)"
        )
    if (report := _boundary_report(runs)) is not None and report.get("checkpoint_sha256") != sha256_file(model):
        problems.append(
            f"{runs.boundary_file('model')}: was trained beside another model, expected one of the best.pt in"
            f" {runs.training}; train it again (`snakemake boundaries`), or remove {runs.boundaries}"
        )
    for stream, digest in needed.items():
        path = runs.backbone(stream)
        if path.is_file() and not digest.startswith(TIMM) and (found := sha256_file(path)) != digest:
            problems.append(
                f"{path}: its SHA-256 is {found[:12]}, but {model} was trained with {digest[:12]}; train the"
                " translation model again, or put that backbone there"
            )
    return needed, problems


def _judge_of_another(runs: RunLayout, stream: str) -> str:
    return (
        f"{runs.judge_file(stream, 'report')}: is of another backbone, expected a report on the backbone.pt beside it;"
        " judge that (signstreams evaluate-backbone), or remove the report"
    )


def _judge_files(runs: RunLayout, stream: str) -> tuple[str, ...]:
    """The judge's files, none where it did not run; a report of before, which names no backbone, is left out."""
    if judge_figures(runs, stream) is not None:
        return tuple(JUDGE_FILES.values())
    if (report := runs.judge_file(stream, "report")).is_file():
        log.warning(
            "%s: left out, as it does not say which backbone.pt it is of; run signstreams evaluate-backbone again",
            report,
        )
    return ()


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
