"""Compare runs: python scripts/compare_runs.py work_dirs/dino_face work_dirs/dino_face/previous/*

One picture with a panel per metric and a line per run; on stdout the last and best values and the settings that differ.
Two translation runs of one corpus are also compared clip by clip: compare.html, with a significance test.
"""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__, __doc__)
