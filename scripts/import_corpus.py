"""Bring a corpus into the project."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__)
