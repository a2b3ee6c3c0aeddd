"""Extract face and hand crops, keypoints, pose and tracks from videos."""

from signstreams.cli import parse
from signstreams.errors import exit_on_user_error
from signstreams.extract.settings import ExtractConfig


def main() -> None:
    config = parse(ExtractConfig)
    with exit_on_user_error():
        from signstreams.contract.run_checks import CheckBeside  # after parsing: --help needs no MediaPipe
        from signstreams.extract.batch import extract_videos, summary

        print(summary(extract_videos(config, on_result=CheckBeside()), config.root))


if __name__ == "__main__":
    main()
