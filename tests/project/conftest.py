"""Tests of the whole project."""

collect_ignore = ["extending"]  # tests of the code on docs/extending.md, which test_extending.py runs on a copy
