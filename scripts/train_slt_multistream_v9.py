"""Train the multistream v9 translation model; best.pt is chosen by val (scripts/evaluate_slt.py scores it on test)."""

from signstreams.cli import parse, start_logging
from signstreams.errors import exit_on_user_error
from signstreams.integrate.settings import IntegrateConfig
from signstreams.processes import prepare_processor


def main() -> None:
    config = parse(IntegrateConfig, doc=__doc__)
    start_logging()
    prepare_processor()
    with exit_on_user_error("run again to go on from the last checkpoint"):
        from signstreams.integrate.run import run  # after parsing: --help and typos answer without torch

        run(config)


if __name__ == "__main__":
    main()
