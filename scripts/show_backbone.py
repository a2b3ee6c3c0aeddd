"""Pictures of what a backbone sees in crops: attention of the class token, patches by PCA, nearest crops."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
