"""Pretrain the backbone of one hand, left or right, or of both, on its crops, self-supervised."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
