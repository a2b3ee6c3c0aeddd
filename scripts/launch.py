"""Run a training script under torchrun: leases GPUs, starts a process for each, over one node or several.

python scripts/launch.py --gpus 2 -- scripts/pretrain_dino_hands.py --distributed --config config/pretrain/hand_r.toml
"""

from signstreams.commands import run_script  # PYTHON_ARGCOMPLETE_OK

if __name__ == "__main__":
    run_script(__file__)
