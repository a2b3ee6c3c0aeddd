"""One folder to attach to a paper or to push to a hub: weights, cards, configs, figures, versions, checksums."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
