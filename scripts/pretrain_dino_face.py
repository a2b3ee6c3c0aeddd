"""Pretrain the face backbone on face crops, self-supervised."""

import logging

from signstreams.cli import parse
from signstreams.config.pretrain import PretrainConfig
from signstreams.errors import exit_on_user_error
from signstreams.processor import prepare_processor
from signstreams.streams import FACE


def main() -> None:
    config = parse(PretrainConfig, doc=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    prepare_processor()
    with exit_on_user_error():
        stream = config.named_stream((FACE,))
        from signstreams.pretrain.run import pretrain  # after parsing: --help and typos answer without torch

        pretrain(config, stream)


if __name__ == "__main__":
    main()
