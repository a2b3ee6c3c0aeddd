"""Pages and bundles lie in the folder of the run that they tell of."""

from __future__ import annotations

from pathlib import Path

from signstreams.cli import parse
from signstreams.publish.settings import OverviewConfig, ReleaseConfig


def test_what_is_written_goes_with_the_work_dir() -> None:
    page, bundle = (parse(model, ["--work-dir", "work_dirs/mine"]) for model in (OverviewConfig, ReleaseConfig))
    assert (page.target(), page.logs_dir()) == (Path("work_dirs/mine/overview.html"), Path("work_dirs/mine/logs"))
    assert bundle.target() == Path("work_dirs/mine/release")
    named = parse(OverviewConfig, ["--work-dir", "work_dirs/mine", "--output", "a.html", "--logs", "b"])
    assert (named.target(), named.logs_dir()) == (Path("a.html"), Path("b"))
