"""One training run, from its config to the best model: read, embed, train, choose on val."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from signstreams.corpus.findings import few
from signstreams.corpus.gloss import GlossVocabulary
from signstreams.engine import distributed
from signstreams.engine.distributed import World
from signstreams.engine.run_folder import Fingerprint, recorded_fingerprint
from signstreams.engine.training_run import TrainingRun
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.layout import GLOSSES, CorpusLayout
from signstreams.integrate.clips import ClipSet, tokenize_clips
from signstreams.integrate.corpus_rules import glosses_alone, lost_letters, tokenizer_for, tokenizer_texts
from signstreams.integrate.dataset import ClipDataset, open_datasets, read_inputs
from signstreams.integrate.evaluate import evaluate
from signstreams.integrate.features import ImageReader, decoding_threads
from signstreams.integrate.gloss_text import GlossDataset, load_sentences
from signstreams.integrate.model import MultistreamModel, build_model
from signstreams.integrate.model_files import absent_files
from signstreams.integrate.mska_checkpoint import digest_of_authors, load_mska_checkpoint
from signstreams.integrate.mska_settings import check_processes, mska_checkpoint
from signstreams.integrate.nodes import stream_node_names
from signstreams.integrate.noised_text import SentenceDataset, load_texts, tokenize_texts
from signstreams.integrate.results import CONFIG, RUN_FILES, TOKENIZER, write_training
from signstreams.integrate.settings import IntegrateConfig, few_clips
from signstreams.integrate.stage_settings import sees_video
from signstreams.integrate.stream_backbones import Backbones, load_backbones
from signstreams.integrate.text_model import GlossModel, TextModel
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.trained_model import (
    FORMAT,
    HANDS_ON_TOKENIZER,
    handed_on_tokenizer,
    load_initial_weights,
    load_sequence_weights,
)
from signstreams.integrate.training import Trainer
from signstreams.integrate.videos import extraction_settings, fps_range
from signstreams.processes import stop_on_signal

log = logging.getLogger(__name__)


def run(config: IntegrateConfig) -> None:
    """Train; ``best.pt`` is the model that was best on val.

    Raises:
        UserError: Everything that is wrong with config, data or folder, one line per problem.
        SystemExit: A signal asked the run to stop; a checkpoint was written.
    """
    if absent := absent_files(config.decoder):
        raise UserError(absent)
    world = distributed.start(distributed=config.distributed, device=config.device)
    try:
        check_processes(config, world.size)
        if sees_video(config.stage):
            clips, backbones = read_inputs(config, world)
        else:
            read = load_sentences if config.stage == "g2t" else load_texts
            clips, backbones = read(config), load_backbones(config)
        # before the folder is claimed: there may be nothing to learn
        vocabulary = _vocabulary(config, clips) if sees_video(config.stage) else clips.vocabulary
        handed_on = handed_on_tokenizer(config)
        init_digests, sequence_digest = _first_weights(config)

        def fingerprint_of(config: IntegrateConfig) -> Fingerprint:
            identity = config.identity(backbones.digests, init_digests=init_digests, sequence_digest=sequence_digest)
            return Fingerprint(identity | ({"world_size": world.size} if world.size > 1 else {}), clips.digest)

        config = _with_layers_of_folder(config, world, fingerprint_of)
        fingerprint = fingerprint_of(config)
        with TrainingRun(config, world, fingerprint, RUN_FILES) as training:
            training.write_params({**config.model_dump(mode="json"), "backbone_sha256": backbones.digests}, CONFIG)
            _run(config, clips, vocabulary, backbones, training, handed_on)
    finally:
        distributed.close()


def _first_weights(config: IntegrateConfig) -> tuple[list[str], str | None]:
    """SHA-256 of the files that first weights are taken from: of other trainings, of a sequence pretraining."""
    init, sequence = [], config.train.sequence_checkpoint
    for given in config.train.init_checkpoint:
        if (of_authors := mska_checkpoint(given)) is not None:
            read = partial(_digest_of_authors, of_authors)
            init.append(_digest("init_checkpoint", given, "a checkpoint of MSKA's authors", read))
        else:
            init.append(_digest("init_checkpoint", given, "the best.pt of another run"))
    if sequence is None:
        return init, None
    return init, _digest("sequence_checkpoint", sequence, "the best.pt of a sequence pretraining")


def _digest_of_authors(file: Path, _: Path) -> str:
    return digest_of_authors(file)


def _digest(key: str, path: Path, wanted: str, read: Callable[[Path], str] = sha256_file) -> str:
    try:
        return read(path)
    except OSError as error:
        raise UserError(f"train.{key}: {path}: {error.strerror}, expected {wanted}; name one") from None


def _with_layers_of_folder(
    config: IntegrateConfig, world: World, fingerprint_of: Callable[[IntegrateConfig], Fingerprint]
) -> IntegrateConfig:
    """The config with MSKA's layers as the run has them that this one goes on from: earlier versions had fewer.

    A run that is another one for any other reason has all layers, and so has one whose config names them.
    """
    mska = config.mska
    has_mska = config.model.use_mska and sees_video(config.stage)
    if not has_mska or "layers" in mska.model_fields_set or config.resume == "never":
        return config
    earlier = config.model_copy(update={"mska": mska.model_copy(update={"layers": "reduced"})})
    recorded = distributed.found_by_main(world, partial(recorded_fingerprint, config.output_dir))
    if recorded is None or fingerprint_of(earlier).differences(recorded):
        return config
    if world.is_main:
        log.info(
            "%s: a run of an earlier version, whose MSKA has fewer layers; it stays so (mska.layers: reduced)",
            config.output_dir,
        )
    return earlier


def _run(
    config: IntegrateConfig,
    clips: ClipSet,
    vocabulary: GlossVocabulary | None,
    backbones: Backbones,
    training: TrainingRun,
    handed_on: Tokenizer | None,
) -> None:
    experiment, world = training.experiment, training.world
    tokenizer = handed_on or _tokenizer(config, clips)
    if experiment is not None:
        if not (experiment.state / TOKENIZER).exists():
            tokenizer.save(experiment.state / TOKENIZER)
        experiment.publish(TOKENIZER)
    if vocabulary is not None and experiment is not None:
        vocabulary.save(experiment.state / GLOSSES)
        experiment.publish(GLOSSES)
    if world.is_main:
        counts = ", ".join(f"{len(entries)} {split}" for split, entries in clips.entries.items())
        kind = "clips" if sees_video(config.stage) else "sentences"
        log.info("%s: %s%s", kind, counts, f"; {len(vocabulary) - 1} glosses" if vocabulary else "")
        if config.writes_text and (note := few_clips(len(clips.entries["train"]))):
            log.warning("%s", note)
    if config.mska.learns_text:
        _check_letters(config, clips, tokenizer, world)
    extraction = {}
    splits: Mapping[str, ClipDataset]
    if config.stage == "text":
        entries = tokenize_texts(clips, tokenizer, config.decoder.max_tokens)
        splits = {split: SentenceDataset(chosen, tokenizer.special) for split, chosen in entries.items()}
    else:
        most_tokens = config.decoder.max_tokens if config.mska.learns_text else None
        entries = tokenize_clips(clips.entries, tokenizer, most_tokens)
    if config.stage == "g2t":
        splits = {split: GlossDataset(chosen) for split, chosen in entries.items()}
    elif sees_video(config.stage):
        splits = open_datasets(config, clips, backbones, world, entries)
        extraction = extraction_settings(config.root, clips.entries["train"][0].video.video_id)
    num_glosses = len(vocabulary) if vocabulary else None
    model = build_model(config, backbones, tokenizer, num_glosses=num_glosses)
    if isinstance(model, GlossModel) and vocabulary is not None:
        model.start_from_words(vocabulary.names, tokenizer)
    model.to(world.device)
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
            "extraction": extraction,
            "fps_range": fps_range(clips.videos),
            "num_train_clips": len(clips.entries["train"]),
            "decoder": None if model.decoder is None else model.decoder.net.config.to_json_string(use_diff=False),
            "token_roles": tokenizer.special.as_dict(),
            **({HANDS_ON_TOKENIZER: True} if handed_on or _is_of_texts(config) else {}),
            "glosses": list(vocabulary.names) if vocabulary else None,
            "nodes": stream_node_names(),
        },
        read_images=reader,
    )
    if not training.resume(trainer):
        _load_first_weights(config, model, backbones, tokenizer, vocabulary)
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


def _load_first_weights(
    config: IntegrateConfig,
    model: TextModel,
    backbones: Backbones,
    tokenizer: Tokenizer,
    vocabulary: GlossVocabulary | None,
) -> None:
    """Weights of other runs in place of random ones, in the order they are named; the log lists what none has."""
    filled: set[str] = set()
    for start in config.train.init_checkpoint:
        if (of_authors := mska_checkpoint(start)) is not None:
            assert isinstance(model, MultistreamModel)
            filled |= load_mska_checkpoint(model, of_authors, vocabulary)
        else:
            filled |= load_initial_weights(model, start, tokenizer, vocabulary)
    left = [name for name in model.state_dict() if name not in filled]
    if config.train.init_checkpoint and left:
        log.warning("%d tensors keep their initial weights: %s", len(left), few(left))
    if (sequence := config.train.sequence_checkpoint) is not None:
        load_sequence_weights(model, sequence, backbones, config)


def _vocabulary(config: IntegrateConfig, clips: ClipSet) -> GlossVocabulary | None:
    """Glosses of the train split, unless no loss learns them."""
    if not config.model.use_mska:
        return None
    _check_glosses(config, clips)
    if clips.vocabulary is not None and config.learns_glosses:
        return clips.vocabulary
    switch = "mska.ctc_weight is 0" if config.stage == "slt" else f"stage is {config.stage}"
    reason = switch if clips.vocabulary else f"{config.root} has no glosses for the clips of train"
    log.info("%s: CTC and self-distillation are off", reason)
    return None


def _check_glosses(config: IntegrateConfig, clips: ClipSet) -> None:
    has_glosses = {
        "train": any(entry.gloss_ids for entry in clips.entries["train"]),
        "val": any(entry.gloss for entry in clips.entries["val"]),
    }
    if refusal := glosses_alone(has_glosses, config):
        raise UserError(refusal.line(str(CorpusLayout(config.root).gloss)))


def _check_letters(config: IntegrateConfig, clips: ClipSet, tokenizer: Tokenizer, world: World) -> None:
    """Say which letters a tokenizer loses.

    Raises:
        UserError: In too many of the texts.
    """
    texts = [entry.text for entries in clips.entries.values() for entry in entries]
    if (found := lost_letters(texts, tokenizer)) is None:
        return
    refusal, is_refused = found
    place = str(config.decoder.tokenizer or config.decoder.model)
    if is_refused:
        raise UserError(refusal.line(place))
    if world.is_main:
        log.warning("%s: %s; %s", place, refusal.found, refusal.fix)


def _is_of_texts(config: IntegrateConfig) -> bool:
    """Whether the tokenizer is learned from more texts than those of the corpus, and so one to keep in later runs."""
    return config.stage == "text" and config.decoder.uses_own_tokenizer


def _tokenizer(config: IntegrateConfig, clips: ClipSet) -> Tokenizer:
    train_texts = [entry.text for entry in clips.entries["train"]]
    return tokenizer_for(config.decoder, tokenizer_texts(config, train_texts, clips.vocabulary))
