"""One sequence pretraining, from its config to the weights that a training starts from."""

from __future__ import annotations

import logging

from signstreams.engine import distributed
from signstreams.engine.metrics import Panel, plot_curves, read_metrics
from signstreams.engine.run_folder import Experiment, Fingerprint
from signstreams.engine.seeding import seed_global
from signstreams.engine.training_run import RunFiles, TrainingRun
from signstreams.formats.layout import CURVES, METRICS, SEQUENCE_FILES
from signstreams.integrate.clips import ClipEntry, ClipSet
from signstreams.integrate.dataset import open_datasets
from signstreams.integrate.model import visual_dims
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.stream_backbones import Backbones, load_backbones
from signstreams.integrate.trained_model import SEQUENCE_FORMAT
from signstreams.processes import stop_on_signal
from signstreams.sequence.model import SequenceModel
from signstreams.sequence.settings import SequenceConfig
from signstreams.sequence.targets import NODES, Clusters, find_clusters
from signstreams.sequence.training import SequenceTrainer
from signstreams.sequence.windows import load_windows

log = logging.getLogger(__name__)

RUN_FILES = RunFiles(SEQUENCE_FILES["last"], SEQUENCE_FILES["best"], METRICS, list(SEQUENCE_FILES.values()))
PANELS = (
    Panel("Loss (per hidden step)", ("train/loss", "val/loss")),
    Panel("Share of hidden steps predicted", ("train/accuracy", "val/accuracy", "val/repeat", "val/majority")),
    Panel("Val, by stream", tuple(f"val/accuracy_{stream}" for stream in NODES)),
    Panel("Gradient norm", ("train/grad_norm",)),
    Panel("Learning rate", ("train/lr",)),
    Panel("Windows per second", ("train/windows_per_s",)),
)
_CAPTION = (
    "Good: the loss falls on val as on train, and more hidden steps are predicted than by the commonest cluster "
    "(majority) or the nearest step that is seen (repeat). Bad: val rises while train falls (too little footage: "
    "fewer epochs)."
)


def pretrain_sequence(config: SequenceConfig) -> dict[str, float]:
    """Pretrain; ``best.pt`` has the lowest loss on val. Returns the last scores on val.

    Raises:
        UserError: Everything that is wrong with config, data or folder, one line per problem.
        SystemExit: A signal asked the run to stop; a checkpoint was written.
    """
    world = distributed.start(device=config.device)
    training = config.as_training()
    windows = load_windows(config, training)
    backbones = load_backbones(training)
    fingerprint = Fingerprint(config.identity(backbones.digests), windows.digest)
    with TrainingRun(config, world, fingerprint, RUN_FILES) as run:
        params = {**config.model_dump(mode="json"), "backbone_sha256": backbones.digests}
        run.write_params(params, SEQUENCE_FILES["config"])
        return _run(config, training, windows, backbones, run)


def _run(
    config: SequenceConfig, training: IntegrateConfig, windows: ClipSet, backbones: Backbones, run: TrainingRun
) -> dict[str, float]:
    assert run.experiment is not None  # there is one process
    splits = open_datasets(training, windows, backbones, run.world)
    hours = {split: sum(_seconds(one, windows) for one in clips.entries) / 3600 for split, clips in splits.items()}
    shown = (f"{len(clips):,} windows of {hours[split]:.2f} h in {split}" for split, clips in splits.items())
    log.info("%s", ", ".join(shown))
    path = run.experiment.state / SEQUENCE_FILES["clusters"]
    if not path.exists():
        find_clusters(splits["train"], config.model, config.prediction, config.seed).save(path)
    run.experiment.publish(SEQUENCE_FILES["clusters"])
    clusters = Clusters.load(path)
    seed_global(config.seed, "sequence weights")
    model = SequenceModel(
        training,
        feature_dims=visual_dims(config.model, backbones),
        num_layers=backbones.num_layers,
        num_clusters={stream: len(centres) for stream, centres in clusters.centres.items()},
    ).to(run.world.device)
    describe = {
        "format": SEQUENCE_FORMAT,
        "config": config.model_dump(mode="json"),
        "feature_dims": backbones.dims,
        "backbone_sha256": backbones.digests,
        "clusters": {stream: len(centres) for stream, centres in clusters.centres.items()},
        "hours": hours,
    }
    trainer = SequenceTrainer(config, model, clusters, splits, run, describe)
    run.resume(trainer)
    log.info("%s parameters", f"{sum(p.numel() for p in model.parameters()):,}")
    with stop_on_signal() as stop:
        run.train(trainer, stop)
    trainer.check_best()
    run.publish(trainer)
    _write(run.experiment)
    lines = read_metrics(run.experiment.state / METRICS)
    return {key.removeprefix("val/"): value for line in lines for key, value in line.items() if key.startswith("val/")}


def _seconds(entry: ClipEntry, windows: ClipSet) -> float:
    times_s = windows.points.times_s[entry.video.video_id]
    return float(times_s[entry.frames[-1]] - times_s[entry.frames[0]])


def _write(experiment: Experiment) -> None:
    """Draw the curves and list the run's files."""
    metrics, folder = read_metrics(experiment.state / METRICS), experiment.folder
    plot_curves(metrics, folder / CURVES, PANELS, title=folder.name, caption=_CAPTION)
    names = {"metrics" if kind == "history" else kind: name for kind, name in SEQUENCE_FILES.items()}
    made = {kind: folder / name for kind, name in names.items() if kind != "artifacts"}
    experiment.write_artifacts({kind: path for kind, path in made.items() if path.exists()})
