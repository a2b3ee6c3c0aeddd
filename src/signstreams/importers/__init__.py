"""`signstreams import`: corpora as they are published, ELAN files, subtitles and tables become a corpus of ours."""
