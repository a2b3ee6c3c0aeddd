"""The whole run on one page: corpus, backbones, translation, runtimes, versions, settings."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
