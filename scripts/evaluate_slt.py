"""Score a trained translation model: predictions.csv and scores.json."""

from signstreams.cli import parse, start_logging
from signstreams.errors import exit_on_user_error
from signstreams.integrate.settings import EvaluateSltConfig
from signstreams.processes import prepare_processor


def main() -> None:
    config = parse(EvaluateSltConfig)
    start_logging()
    prepare_processor()
    with exit_on_user_error():
        from signstreams.integrate.scoring import score  # after parsing: --help and typos answer without torch

        score(config)


if __name__ == "__main__":
    main()
