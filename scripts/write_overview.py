"""The whole run on one page: corpus, backbones, translation, runtimes, versions, settings."""

from __future__ import annotations

from signstreams.cli import parse
from signstreams.errors import exit_on_user_error
from signstreams.publish.settings import OverviewConfig


def main() -> None:
    """Parse, then write."""
    config = parse(OverviewConfig, doc=__doc__)
    with exit_on_user_error("run again"):
        from signstreams.publish.overview import write_overview

        write_overview(config.target(), config.root, config.work_dir, config.logs_dir(), config.shown_settings())
        print(config.target())


if __name__ == "__main__":
    main()
