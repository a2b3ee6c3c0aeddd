"""Extract face and hand crops, keypoints, pose and tracks from videos."""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__)
