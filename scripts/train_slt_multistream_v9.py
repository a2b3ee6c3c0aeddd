"""Train the multistream v9 translation model."""

from __future__ import annotations

from signstreams.cli import parse
from signstreams.config.integrate import IntegrateConfig
from signstreams.errors import exit_on_user_error


def main() -> None:
    """Parse, then load what is heavy."""
    config = parse(IntegrateConfig)
    with exit_on_user_error():
        from signstreams.integrate.run import run  # after parsing: --help and typos answer without torch

        run(config)


if __name__ == "__main__":
    main()
