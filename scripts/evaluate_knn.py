"""Weighted k-NN on true handshape: a pretrained hand backbone, the same with random weights, raw pixels."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
