"""One folder to attach to a paper or to push to a hub: weights, cards, configs, figures, versions, checksums."""

from __future__ import annotations

from pathlib import Path

from signstreams.cli import parse
from signstreams.errors import exit_on_user_error
from signstreams.publish.settings import ReleaseConfig


def main() -> None:
    """Parse, then write."""
    config = parse(ReleaseConfig, doc=__doc__)
    with exit_on_user_error("run again"):
        from signstreams.publish.release import write_release

        files = write_release(
            config.target(),
            config.root,
            config.work_dir,
            config.shown_settings(),
            project=Path(__file__).resolve().parents[1],
            predictions=config.predictions,
            metrics_lines=config.metrics_lines,
        )
        print(f"{config.target()}: {len(files)} files")


if __name__ == "__main__":
    main()
