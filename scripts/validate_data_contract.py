"""Check a corpus against the data contract: report, page and manifest; exit code 2 on an error."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__)
