"""Corpus reader: videos, meta.csv, glosses, splits. Needs neither torch nor numpy.

``load_*`` and ``read_*`` raise `signstreams.errors.UserError` with all problems at once; ``scan_*`` never raise for
wrong content and return it as findings, which the data contract reports.
"""

from signstreams.corpus.clips import Clip
from signstreams.corpus.corpus import Corpus, load_corpus, scan_corpus
from signstreams.corpus.gloss import Gloss, GlossVocabulary, read_gloss, scan_gloss
from signstreams.corpus.meta_csv import MetaTable, scan_meta
from signstreams.corpus.splits import read_index, scan_index, write_splits

__all__ = [
    "Clip",
    "Corpus",
    "Gloss",
    "GlossVocabulary",
    "MetaTable",
    "load_corpus",
    "read_gloss",
    "read_index",
    "scan_corpus",
    "scan_gloss",
    "scan_index",
    "scan_meta",
    "write_splits",
]
