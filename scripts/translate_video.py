"""Translate videos with a trained model: python scripts/translate_video.py VIDEO --checkpoint best.pt"""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
