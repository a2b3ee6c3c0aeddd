"""What `scripts/write_overview.py` and `scripts/release.py` take. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import field_validator

from signstreams.config.kinds import Count
from signstreams.config.summary import SummaryConfig


class PublishConfig(SummaryConfig):
    """What both show of the workflow itself."""

    settings: str = "{}"
    """Settings of the workflow as JSON, shown as they are."""

    @field_validator("settings")
    @classmethod
    def _is_an_object(cls, value: str) -> str:
        try:
            content = json.loads(value)
        except ValueError as error:
            raise ValueError(f"is not JSON ({error})") from None
        if not isinstance(content, dict):
            raise ValueError('is no JSON object, expected one, such as {"corpus": {"root": "data/demo"}}')
        return value

    def shown_settings(self) -> dict[str, Any]:
        """The settings, read."""
        content: dict[str, Any] = json.loads(self.settings)
        return content


class OverviewConfig(PublishConfig):
    """The whole run on one page: corpus, backbones, translation, runtimes, versions, settings."""

    output: Path | None = None
    """File to write. None: overview.html in the work_dir."""
    logs: Path | None = None
    """Folder of the workflow's logs, with the benchmark files beside them. None: logs in the work_dir."""

    def target(self) -> Path:
        """File to write."""
        return self.output or self.work_dir / "overview.html"

    def logs_dir(self) -> Path:
        """Folder of the logs."""
        return self.logs or self.work_dir / "logs"


class ReleaseConfig(PublishConfig):
    """One folder to attach to a paper or to push to a hub: weights, cards, configs, figures, versions, checksums."""

    output: Path | None = None
    """Folder to write; an older release there is replaced. None: release in the work_dir."""
    predictions: bool = False
    """Also predictions.csv, which repeats texts of the corpus."""
    metrics_lines: Count = 500
    """Lines kept of each metrics.jsonl, evenly; evaluations and probes all stay."""

    def target(self) -> Path:
        """Folder to write."""
        return self.output or self.work_dir / "release"
