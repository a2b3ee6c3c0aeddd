"""Train the multistream v9 translation model; best.pt is chosen by val (scripts/evaluate_slt.py scores it on test)."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
