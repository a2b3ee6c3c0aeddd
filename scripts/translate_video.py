"""Translate videos with a trained model: python scripts/translate_video.py VIDEO --checkpoint best.pt"""

import dataclasses
import json
import logging
import sys

from signstreams.cli import leading_words_as, parse, start_logging
from signstreams.errors import exit_on_user_error
from signstreams.integrate.settings import TranslateConfig
from signstreams.processes import prepare_processor


def main() -> None:
    config = parse(TranslateConfig, leading_words_as("--videos", sys.argv[1:]), doc=__doc__)
    start_logging(logging.WARNING)
    prepare_processor()
    with exit_on_user_error("nothing is left behind; videos translated so far need no second run"):
        from signstreams.translate import translate  # after parsing: --help and typos answer without torch

        for translation in translate(config):
            if config.as_json:
                print(json.dumps(dataclasses.asdict(translation), ensure_ascii=False), flush=True)
            else:
                print(translation.text, flush=True)


if __name__ == "__main__":
    main()
