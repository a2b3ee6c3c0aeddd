"""Lay runs over each other: python scripts/compare_runs.py work_dirs/dino_face work_dirs/dino_face/previous/*

One picture with a panel a metric and a line a run; on stdout the last and best values, and the settings that differ.
"""

import sys

from signstreams.cli import leading_words_as, parse, start_logging
from signstreams.errors import exit_on_user_error
from signstreams.publish.settings import CompareConfig


def main() -> None:
    config = parse(CompareConfig, leading_words_as("--runs", sys.argv[1:]), doc=__doc__)
    start_logging()
    with exit_on_user_error("run again"):
        from signstreams.publish.compare import compare  # after parsing: --help answers without matplotlib

        print("\n".join(compare(config)))


if __name__ == "__main__":
    main()
