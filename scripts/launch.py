"""Run a training script under torchrun: leases GPUs, starts a process for each, over one node or several.

python scripts/launch.py --gpus 2 -- scripts/pretrain_dino_hands.py --distributed --config config/pretrain/hand_r.toml
"""

import argparse

from signstreams.completion import answer_if_asked
from signstreams.errors import exit_on_user_error


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of each node; 0: the CPU (default: 0)")
    words.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes of the Slurm job (default: 1)")
    words.add_argument("--cpus", type=int, metavar="N", help="cores that the Slurm job has on each of several nodes")
    words.add_argument("--cpu-processes", type=int, default=1, metavar="N", help="processes when there is no GPU")
    words.add_argument("--requeue", action="store_true", help="a run that asks for another try: requeue its Slurm job")
    words.add_argument("command", nargs="+", metavar="SCRIPT ...", help="after --: a script and its arguments")
    answer_if_asked(words)
    args = words.parse_args()
    if min(args.gpus, args.nodes - 1, args.cpu_processes - 1) < 0:
        words.error("--gpus is at least 0, --nodes and --cpu-processes at least 1")
    if args.cpus is not None and args.cpus < 1:
        words.error("--cpus is at least 1")
    with exit_on_user_error("nothing was started; run again"):
        from signstreams.engine.launch import launch  # after parsing: --help answers without torch

        code = launch(
            args.command,
            gpus=args.gpus,
            nodes=args.nodes,
            cpus=args.cpus,
            cpu_processes=args.cpu_processes,
            requeues=args.requeue,
        )
    raise SystemExit(code)


if __name__ == "__main__":
    main()
