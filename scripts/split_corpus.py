"""Divide the clips of a corpus into train, val and test."""

from __future__ import annotations

import sys

from signstreams.cli import parse
from signstreams.corpus.settings import SplitCorpusConfig
from signstreams.errors import exit_on_user_error


def main() -> None:
    config = parse(SplitCorpusConfig)
    with exit_on_user_error():
        from signstreams.corpus import load_corpus, write_splits

        corpus = load_corpus(config.root, config.videos_dir, allow_absent_videos=config.allow_absent_videos)
        split = write_splits(corpus.layout, corpus.clips, config)
    for note in split.notes:
        print(f"note: {note}", file=sys.stderr)
    counts = ", ".join(f"{name} {len(ids):,}" for name, ids in split.clip_ids.items())
    print(f"{corpus.layout.index('train').parent}: {counts} clips")


if __name__ == "__main__":
    main()
