"""Write docs/configuration.md, the reference of all settings, from the typed config classes.

Run it after a change of a config class; `--check` only says whether the page is in step, as the test does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from signstreams.generated import write_or_check
from signstreams.reference import configuration_page

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"


def main() -> None:
    """Write the page, or with ``--check`` leave with code 2 when it is stale."""
    write_or_check(
        {PAGE: configuration_page()},
        sys.argv[1:],
        source="the config classes",
        script="export_configuration.py",
        doc=__doc__ or "",
    )


if __name__ == "__main__":
    main()
