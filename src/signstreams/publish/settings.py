"""Settings of what reads finished runs: summary, overview page, release bundle, comparison of runs. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from signstreams.config.section import Count, Section
from signstreams.engine.settings import CardConfig
from signstreams.formats.layout import RunLayout


class SummaryConfig(Section):
    """Folders of a run."""

    root: Path = Path("data/demo")
    """Folder of the corpus."""
    work_dir: Path = Path("work_dirs")
    """Folder of the trained models."""


class PublishConfig(SummaryConfig):
    """What the overview and the release show of the workflow itself."""

    settings: str = "{}"
    """Settings of the workflow as a JSON object, shown as they are."""

    @field_validator("settings")
    @classmethod
    def _is_an_object(cls, value: str) -> str:
        try:
            content = json.loads(value)
        except ValueError as error:
            raise ValueError(f"is not JSON ({error})") from None
        if not isinstance(content, dict):
            raise ValueError('is not a JSON object, expected one such as {"corpus": {"root": "data/demo"}}')
        return value

    def shown_settings(self) -> dict[str, Any]:
        """The parsed settings."""
        content: dict[str, Any] = json.loads(self.settings)
        return content


class OverviewConfig(PublishConfig):
    """The whole run on one page: corpus, backbones, translation, runtimes, versions, settings."""

    output: Path | None = None
    """File to write; none: overview.html in the work_dir."""
    logs: Path | None = None
    """Folder of the workflow's logs, with the benchmark files beside them; none: logs in the work_dir."""
    pretraining_only: bool = False
    """Leave out what comes after the backbones, whatever is there of it."""

    def target(self) -> Path:
        """File to write."""
        return self.output or RunLayout(self.work_dir).overview

    def logs_dir(self) -> Path:
        """Folder of the logs."""
        return self.logs or RunLayout(self.work_dir).logs


class ReleaseConfig(PublishConfig, CardConfig):
    """One folder to attach to a paper or to push to a hub: weights, cards, configs, figures, versions, checksums."""

    output: Path | None = None
    """Folder to write; an older release there is replaced; none: release in the work_dir."""
    predictions: bool = False
    """Also predictions.csv, which repeats texts of the corpus."""
    metrics_lines: Count = 500
    """Lines kept of each metrics.jsonl, spread evenly; all evaluations and probes stay."""

    def target(self) -> Path:
        """Folder to write."""
        return self.output or RunLayout(self.work_dir).release

    def card(self) -> CardConfig:
        """What its cards say of licences, consent and data."""
        return CardConfig(**{name: getattr(self, name) for name in CardConfig.model_fields})


class CompareConfig(Section):
    """Compare runs: a picture with a panel per metric and a curve per run, tables of values and settings. Of two
    translation runs also a page beside the picture: both texts of each clip, and whether the scores differ."""

    runs: list[Path] = Field(min_length=1)
    """Output folders of runs, archived ones (previous/...) too, or files of metrics; may also come first, unnamed."""
    metrics: list[str] = []
    """Names of metrics or patterns such as 'val/wer_*' (quoted); none: those that matter for the kind of run."""
    output: Path = Path("compare.png")
    """Picture to write, a PNG; the page of two translation runs has the same name with .html."""
    tag: str | None = None
    """Keep only runs with this tag."""
    against: Literal["step", "epoch", "time"] = "step"
    """Horizontal axis; time is that of training as logged, without a translation run's evaluations."""

    @field_validator("output")
    @classmethod
    def _is_a_png(cls, path: Path) -> Path:
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path} does not end in .png, expected the name of a picture such as compare.png")
        return path
