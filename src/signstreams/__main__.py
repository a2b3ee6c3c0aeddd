"""``python -m signstreams``: the command `signstreams`."""

# PYTHON_ARGCOMPLETE_OK

from signstreams.commands import main

if __name__ == "__main__":
    main()
