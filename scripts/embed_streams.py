"""Run a frozen backbone over all crops of a stream, or gather the points of all videos, once for every training."""

from signstreams.cli import parse, start_logging
from signstreams.errors import exit_on_user_error
from signstreams.integrate.settings import EmbedConfig
from signstreams.processes import prepare_processor


def main() -> None:
    config = parse(EmbedConfig, doc=__doc__)
    start_logging()
    prepare_processor()
    with exit_on_user_error():
        from signstreams.integrate.embed import embed  # after parsing: --help and typos answer without torch

        found = embed(config)
        print(f"{config.stream}: {len(found['videos'])} videos, {found['num_frames']} frames, {found['bytes']} bytes")


if __name__ == "__main__":
    main()
