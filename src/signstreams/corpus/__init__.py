"""Corpus reader: videos, meta.csv, glosses, splits. Needs neither torch nor numpy.

``load_*`` and ``read_*`` raise `signstreams.errors.UserError` with all problems at once; ``scan_*`` never raise for
wrong content and return it as findings, which the data contract reports.
"""
