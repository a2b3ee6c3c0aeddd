"""Whether a trained model, or a named language model, is on this machine; asked before all else. Imports no torch.

A language model is looked for where the Hugging Face hub keeps what it downloaded; a folder is one that it wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from signstreams.errors import UserError
from signstreams.formats.layout import TRAINING_FILES, RunLayout
from signstreams.integrate.presets import PRESETS
from signstreams.integrate.settings import DecoderConfig, TrainedModelSection

CONFIG_FILES = ("config.json",)
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer_config.json")
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
KNOWN_MODELS = frozenset(
    str(preset["decoder"]["model"]) for preset in PRESETS.values() if "model" in preset.get("decoder", {})
)
"""Models of the presets: their sizes are known here, so that they are built with random weights without a file."""


def trained_model_file(given: TrainedModelSection) -> Path:
    """The checkpoint that a config names: a file, or the best.pt of a folder that is a release, a run, or holds one.

    Raises:
        UserError: There is none.
    """
    best, path = TRAINING_FILES["best"], given.checkpoint
    places = (path / best, path / "translation" / best, RunLayout(path).training_file("best"))
    if path.is_dir():
        if found := [place for place in places if place.is_file()]:
            return found[0]
        looked = ", ".join(str(place.relative_to(path)) for place in places)
        raise UserError(f"{path}: this folder has none of {looked}, expected a trained model; name its {best}")
    if not path.exists():
        raise UserError(
            f"{path}: no such file, expected a trained model; train one (signstreams train) or name"
            " it with --checkpoint"
        )
    return path


def absent_files(config: DecoderConfig) -> list[str]:
    """One line for each part of the named model that is not on this machine, though nothing may be fetched."""
    return [
        absent_line(key, source, f"is not on this machine (no {what})", is_offline=True)
        for key, source, what, names in _needed(config)
        if (config.offline or Path(source).is_dir()) and not _is_here(source, names)
    ]


def absent_line(key: str, source: str, what: str, *, is_offline: bool) -> str:
    """What a user does about a model that cannot be loaded; ``what`` is said of it."""
    target = f"models/{source.rstrip('/').rsplit('/', 1)[-1]}"
    return (
        f"{key}: {source} {what}; where there is a network: hf download {source} --local-dir {target}, copy that folder"
        f" here and use --decoder-model {target}" + ("; or --decoder-offline false" if is_offline else "")
    )


def _needed(config: DecoderConfig) -> Iterator[tuple[str, str, str, Collection[str]]]:
    """Key, name or folder, what is needed of it, and the files of which one is enough."""
    if config.model is None:
        return
    is_pretrained = config.weights == "pretrained"
    if is_pretrained or config.model not in KNOWN_MODELS or Path(config.model).is_dir():
        yield "decoder.model", config.model, "config", CONFIG_FILES
    if is_pretrained:
        yield "decoder.model", config.model, "weights", WEIGHT_FILES
    if not config.uses_own_tokenizer:
        key = "decoder.tokenizer" if config.tokenizer else "decoder.model"
        yield key, config.tokenizer or config.model, "tokenizer", TOKENIZER_FILES


def _is_here(source: str, names: Collection[str]) -> bool:
    if Path(source).is_dir():
        return any((Path(source) / name).is_file() for name in names)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return any(isinstance(try_to_load_from_cache(source, name), str) for name in names)
    except HFValidationError:  # a path of a folder that is not there
        return False
