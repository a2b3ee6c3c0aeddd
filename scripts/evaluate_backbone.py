"""Judge backbones by k-NN and a linear probe on labelled images or clips, beside simple baselines."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
