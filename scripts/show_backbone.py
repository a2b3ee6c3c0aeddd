"""Pictures of what a backbone sees in crops: attention of the class token, patches by PCA, nearest crops."""

from signstreams.cli import parse, start_logging
from signstreams.errors import exit_on_user_error
from signstreams.pretrain.settings import ShowConfig
from signstreams.processes import prepare_processor


def main() -> None:
    config = parse(ShowConfig, doc=__doc__)
    start_logging()
    prepare_processor()
    with exit_on_user_error("run again"):
        from signstreams.pretrain.pictures import show_backbone  # after parsing: --help answers without torch

        for path in show_backbone(config).values():
            print(path)


if __name__ == "__main__":
    main()
