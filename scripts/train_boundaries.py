"""Train the boundary model: python scripts/train_boundaries.py --checkpoint work_dirs/multistream_v9/best.pt"""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
