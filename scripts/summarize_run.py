"""Say what a run of the workflow made and where it lies: contract, backbones, k-NN, translation.

Reads what is there; a stage that has not run yet is said to be missing.
"""

from __future__ import annotations

from signstreams.cli import parse
from signstreams.errors import exit_on_user_error
from signstreams.publish.settings import SummaryConfig


def main() -> None:
    """Parse, then print."""
    config = parse(SummaryConfig, doc=__doc__)
    from signstreams.publish.figures import summarize

    print("\n".join(summarize(config.root, config.work_dir)))


if __name__ == "__main__":
    with exit_on_user_error("run again"):
        main()
