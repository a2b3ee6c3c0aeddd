"""Say what a run of the workflow made and where it is: contract, backbones, k-NN, translation.

Reads what is there; a stage that has not run yet is reported as missing.
"""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
