"""Pretrain the face backbone on face crops, self-supervised."""

from signstreams.cli import parse, start_logging
from signstreams.errors import exit_on_user_error
from signstreams.pretrain.settings import PretrainConfig
from signstreams.processes import prepare_processor
from signstreams.streams import pretrained_by


def main() -> None:
    config = parse(PretrainConfig, doc=__doc__)
    start_logging()
    prepare_processor()
    with exit_on_user_error("run again to go on from the last checkpoint"):
        stream = config.named_stream(pretrained_by("pretrain_dino_face.py"))
        from signstreams.pretrain.run import pretrain  # after parsing: --help and typos answer without torch

        pretrain(config, stream)


if __name__ == "__main__":
    main()
