"""Pictures of what a backbone sees in crops: attention of the class token, patches by PCA, nearest crops."""

import logging

from signstreams.cli import parse
from signstreams.config.show import ShowConfig
from signstreams.errors import exit_on_user_error
from signstreams.processor import prepare_processor


def main() -> None:
    config = parse(ShowConfig, doc=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    prepare_processor()
    with exit_on_user_error():
        from signstreams.pretrain.pictures import show_backbone  # after parsing: --help answers without torch

        for path in show_backbone(config).values():
            print(path)


if __name__ == "__main__":
    main()
