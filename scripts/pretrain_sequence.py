"""Pretrain the fusion encoder on unlabelled hours: python scripts/pretrain_sequence.py --root data/mine ..."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
