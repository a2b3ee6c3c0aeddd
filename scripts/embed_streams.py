"""Run a frozen backbone over all crops of a stream, or gather the points of all videos, once for every training."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
