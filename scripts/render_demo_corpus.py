"""Render the demo corpus: a signer with glosses, Spanish texts, splits and exact ground truth."""

from signstreams.cli import parse
from signstreams.demo.settings import DemoConfig
from signstreams.errors import exit_on_user_error


def main() -> None:
    config = parse(DemoConfig)
    with exit_on_user_error():
        from signstreams.demo.corpus import run  # after parsing: --help needs neither cv2 nor PyAV

        print(run(config))


if __name__ == "__main__":
    main()
