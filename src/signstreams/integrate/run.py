"""One training run, from its config to the best model: read, embed, train, choose on val."""

from __future__ import annotations

import logging
from functools import partial

from signstreams.corpus.gloss import GlossVocabulary
from signstreams.engine import distributed
from signstreams.engine.distributed import World
from signstreams.engine.run_folder import Experiment, Fingerprint
from signstreams.engine.training_run import TrainingRun
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.layout import GLOSSES, CorpusLayout
from signstreams.integrate.clips import ClipSet, tokenize_clips
from signstreams.integrate.dataset import open_datasets, read_inputs
from signstreams.integrate.decoder import named_tokenizer
from signstreams.integrate.evaluate import evaluate
from signstreams.integrate.features import ImageReader, decoding_threads
from signstreams.integrate.model import build_model
from signstreams.integrate.nodes import stream_node_names
from signstreams.integrate.results import CONFIG, RUN_FILES, TOKENIZER, write_training
from signstreams.integrate.settings import IntegrateConfig, few_clips
from signstreams.integrate.stream_backbones import Backbones
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.trained_model import FORMAT, load_initial_weights
from signstreams.integrate.training import Trainer
from signstreams.integrate.videos import extraction_settings, fps_range
from signstreams.integrate.vocabulary import pruned
from signstreams.processes import stop_on_signal

log = logging.getLogger(__name__)


def run(config: IntegrateConfig) -> None:
    """Train; ``best.pt`` is the model that was best on val.

    Raises:
        UserError: Everything that is wrong with config, data or folder, one line per problem.
        SystemExit: A signal asked the run to stop; a checkpoint was written.
    """
    world = distributed.start(distributed=config.distributed, device=config.device)
    try:
        clips, backbones = read_inputs(config, world)
        vocabulary = _vocabulary(config, clips)  # before the folder is claimed: there may be nothing to learn
        identity = config.identity(backbones.digests, init_digest=_init_digest(config))
        fingerprint = Fingerprint(identity | ({"world_size": world.size} if world.size > 1 else {}), clips.digest)
        with TrainingRun(config, world, fingerprint, RUN_FILES) as training:
            training.write_params({**config.model_dump(mode="json"), "backbone_sha256": backbones.digests}, CONFIG)
            _run(config, clips, vocabulary, backbones, training)
    finally:
        distributed.close()


def _init_digest(config: IntegrateConfig) -> str | None:
    path = config.train.init_checkpoint
    if path is None:
        return None
    try:
        return sha256_file(path)
    except OSError as error:
        raise UserError(
            f"train.init_checkpoint: {path}: {error.strerror}, expected the best.pt of another run; name one"
        ) from None


def _run(
    config: IntegrateConfig,
    clips: ClipSet,
    vocabulary: GlossVocabulary | None,
    backbones: Backbones,
    training: TrainingRun,
) -> None:
    experiment, world = training.experiment, training.world
    tokenizer = _tokenizer(config, clips, experiment)
    if vocabulary is not None and experiment is not None:
        vocabulary.save(experiment.state / GLOSSES)
        experiment.publish(GLOSSES)
    if world.is_main:
        counts = ", ".join(f"{len(entries)} {split}" for split, entries in clips.entries.items())
        log.info("clips: %s%s", counts, f"; {len(vocabulary) - 1} glosses" if vocabulary else "")
        if config.mska.learns_text and (note := few_clips(len(clips.entries["train"]))):
            log.warning("%s", note)
    if config.mska.learns_text:
        _check_letters(config, clips, tokenizer, world)
    entries = tokenize_clips(clips.entries, tokenizer, config.decoder.max_tokens)
    splits = open_datasets(config, clips, backbones, world, entries)
    num_glosses = len(vocabulary) if vocabulary else None
    model = build_model(config, backbones, tokenizer, num_glosses=num_glosses).to(world.device)
    reader = ImageReader(backbones.sides_px, num_threads=decoding_threads(world.device))
    trainer = Trainer(
        config,
        model,
        splits["train"],
        training,
        evaluate=partial(evaluate, model, splits["val"], config, tokenizer, vocabulary, world, read_images=reader),
        describe={
            "format": FORMAT,
            "config": config.model_dump(mode="json"),
            "feature_dims": backbones.dims,
            "backbone_sha256": backbones.digests,
            **({"mirrored_streams": backbones.mirrored} if backbones.mirrored else {}),
            "extraction": extraction_settings(config.root, clips.entries["train"][0].video.video_id),
            "fps_range": fps_range(clips.videos),
            "num_train_clips": len(clips.entries["train"]),
            "decoder": model.decoder.net.config.to_json_string(use_diff=False),
            "token_roles": tokenizer.special.as_dict(),
            "glosses": list(vocabulary.names) if vocabulary else None,
            "nodes": stream_node_names(),
        },
        read_images=reader,
    )
    if not training.resume(trainer) and config.train.init_checkpoint is not None:
        load_initial_weights(model, config.train.init_checkpoint, tokenizer, vocabulary)
        trainer.start_average()
    if world.is_main:
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        log.info("%s trainable parameters", f"{trainable:,}")
    with stop_on_signal() as stop:
        training.train(trainer, stop)
    trainer.check_best()
    training.publish(trainer)
    if experiment is not None:
        write_training(experiment)


def _vocabulary(config: IntegrateConfig, clips: ClipSet) -> GlossVocabulary | None:
    """Glosses of the train split, unless no loss learns them."""
    if not config.model.use_mska:
        return None
    if not config.mska.learns_text:
        _check_glosses(config, clips)
    if clips.vocabulary is not None and config.mska.ctc_weight:
        return clips.vocabulary
    reason = "mska.ctc_weight is 0" if clips.vocabulary else f"{config.root} has no glosses for the clips of train"
    log.info("%s: CTC and self-distillation are off", reason)
    return None


def _check_glosses(config: IntegrateConfig, clips: ClipSet) -> None:
    """Without the translation loss, train must have glosses to learn from and val some to choose the best model by."""
    with_glosses = (
        ("train", any(entry.gloss_ids for entry in clips.entries["train"]), "no loss is left"),
        ("val", any(entry.gloss for entry in clips.entries["val"]), "best.pt is chosen by their WER"),
    )
    for split, has_glosses, reason in with_glosses:
        if not has_glosses:
            raise UserError(
                f"{CorpusLayout(config.root).gloss}: has no glosses for the clips of {split}, expected some:"
                f" mska.translation_weight is 0, and {reason}; annotate them, or give the translation a weight"
            )


MAX_LOSSY_SHARE = 0.1
"""Share of the texts that a tokenizer may damage: a rare sign in some is a loss, a letter of the language is another
task. T5's English pieces, which lack á, í and ñ, damage three quarters of Spanish sentences."""


def _check_letters(config: IntegrateConfig, clips: ClipSet, tokenizer: Tokenizer, world: World) -> None:
    """Say which letters a tokenizer loses: no training could bring them back.

    Raises:
        UserError: In more than `MAX_LOSSY_SHARE` of the texts.
    """
    texts = [entry.text for entries in clips.entries.values() for entry in entries]
    lost = [letters for text in texts if (letters := tokenizer.lost(text))]
    if not lost:
        return
    letters = " ".join(sorted(set("".join(lost)))[:20])
    found = (
        f"{config.decoder.tokenizer or config.decoder.model}: its tokenizer loses {letters}, in {len(lost):,} of"
        f" {len(texts):,} texts ({len(lost) / len(texts):.0%})"
    )
    advice = (
        "take a model of many languages (google/mt5-base, facebook/mbart-large-cc25), or decoder.weights random, which"
        " learns a tokenizer from the texts"
    )
    if len(lost) > MAX_LOSSY_SHARE * len(texts):
        raise UserError(f"{found}, expected at most {MAX_LOSSY_SHARE:.0%}; {advice}")
    if world.is_main:
        log.warning("%s; %s", found, advice)


def _tokenizer(config: IntegrateConfig, clips: ClipSet, experiment: Experiment | None) -> Tokenizer:
    if config.decoder.uses_own_tokenizer:
        tokenizer = Tokenizer.train([entry.text for entry in clips.entries["train"]], config.decoder.vocab_size)
    else:
        tokenizer = named_tokenizer(config.decoder)
        if config.decoder.is_pruned:
            num_before = len(tokenizer)
            tokenizer = pruned(tokenizer, (entry.text for entry in clips.entries["train"]))
            log.info("%s: %s of %s tokens are kept", config.decoder.model, f"{len(tokenizer):,}", f"{num_before:,}")
    if experiment is not None:
        if not (experiment.state / TOKENIZER).exists():
            tokenizer.save(experiment.state / TOKENIZER)
        experiment.publish(TOKENIZER)
    return tokenizer
