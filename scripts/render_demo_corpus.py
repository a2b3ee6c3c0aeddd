"""Render the demo corpus: a signer with glosses, Spanish texts, splits and exact ground truth."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__)
