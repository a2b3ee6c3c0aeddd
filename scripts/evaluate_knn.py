"""Weighted k-NN on true handshape: a pretrained hand backbone, the same with random weights, raw pixels."""

from signstreams.cli import parse, start_logging
from signstreams.errors import exit_on_user_error
from signstreams.pretrain.settings import KnnConfig
from signstreams.processes import prepare_processor


def main() -> None:
    config = parse(KnnConfig, doc=__doc__)
    start_logging()
    prepare_processor()
    with exit_on_user_error("run again"):
        from signstreams.pretrain.knn import evaluate_knn, table  # after parsing: --help answers without torch

        print(table(evaluate_knn(config)))


if __name__ == "__main__":
    main()
