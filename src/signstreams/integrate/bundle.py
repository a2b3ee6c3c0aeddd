"""A trained model with everything it needs: weights, backbones, tokenizer, glosses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from signstreams.corpus import GlossVocabulary
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.integrate.build import FORMAT, build_model
from signstreams.integrate.decoder import decoder_config_from
from signstreams.integrate.inputs import Backbones, load_backbones
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.results import TOKENIZER, beside
from signstreams.integrate.settings import IntegrateConfig, TrainedModelSection
from signstreams.integrate.tokenizer import Roles, TextTokenizer
from signstreams.streams import BACKBONE_KEYS


@dataclass(frozen=True)
class Bundle:
    """A trained model.

    Attributes:
        path: Of its checkpoint.
        config: It was trained with; backbones are where they lie now.
        model: With its weights, in evaluation mode, on the CPU.
        backbones: Of its streams.
        tokenizer: Of its texts.
        vocabulary: Of its glosses; None without.
        head: Gloss head chosen on val.
        about: What the checkpoint says besides: step, scores on val, extraction settings.
    """

    path: Path
    config: IntegrateConfig
    model: MultistreamModel
    backbones: Backbones
    tokenizer: TextTokenizer
    vocabulary: GlossVocabulary | None
    head: str | None
    about: dict[str, Any]


def load_bundle(given: TrainedModelSection) -> Bundle:
    """Read a checkpoint and what lies beside it.

    Raises:
        UserError: Something is absent, damaged, or not what the model was trained with.
    """
    path = given.checkpoint
    try:
        content = checkpoint.load(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file, expected a trained model; train one (scripts/train_slt_multistream_v9.py) or name"
            " it with --checkpoint"
        ) from None
    except ValueError as error:
        raise UserError(f"{error}; name the best.pt of a run") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path}: is no multistream v9 model, expected the best.pt of a run; name one with --checkpoint"
        )
    if "gloss_head" not in content:
        raise UserError(
            f"{path}: is where a training goes on from, expected a model chosen on val; name the best.pt beside it with"
            " --checkpoint"
        )
    config = _config(path, content, given)
    backbones = load_backbones(config)
    _check_backbones(path, content["backbone_sha256"], backbones)
    tokenizer = TextTokenizer.load(beside(path, TOKENIZER), Roles.from_dict(content["token_roles"]))
    names = content["glosses"]
    vocabulary = None if names is None else GlossVocabulary(tuple(names))
    model = build_model(
        config,
        backbones,
        tokenizer,
        num_glosses=None if names is None else len(names),
        decoder_config=decoder_config_from(content["decoder"]),
    )
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: weights and tokenizer do not belong together ({reason}); train the model anew"
        ) from None
    about = {key: value for key, value in content.items() if key not in ("model", "config", "glosses")}
    return Bundle(path, config, model.eval(), backbones, tokenizer, vocabulary, content["gloss_head"], about)


def _config(path: Path, content: dict[str, Any], given: TrainedModelSection) -> IntegrateConfig:
    """The config it was trained with, its backbones where they lie now."""
    tree = content["config"]
    tree.pop("tracking", None)  # of the training; old ones may name a tracker that no longer exists
    for key in BACKBONE_KEYS.values():
        spec = getattr(given, key)
        if spec is not None and tree["model"].get(key) is None:
            raise UserError(f"{key}: {path} was trained without this stream; leave --{key.replace('_', '-')} out")
        if spec is not None:
            tree["model"][key] = spec
    if given.download and not any(str(tree["model"].get(key)).startswith("timm::") for key in BACKBONE_KEYS.values()):
        raise UserError(f"download has no effect: no backbone of {path} is a timm:: model; leave --model-download out")
    tree["model"]["download"] = given.download  # what the training was allowed counts for the training alone
    try:
        return IntegrateConfig.model_validate(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{path}: its config does not fit this version of signstreams ({place}: {problem['msg']}); train the model"
            " anew"
        ) from None


def _check_backbones(path: Path, expected: dict[str, str], found: Backbones) -> None:
    """Features of other backbones would mean nothing to the model; trained ones are in its own weights."""
    problems = [
        f"{BACKBONE_KEYS[stream]}: its SHA-256 is {found.digests[stream][:12]}, but {path} was trained with"
        f" {expected[stream][:12]}; name that file with --{BACKBONE_KEYS[stream].replace('_', '-')}, or train anew"
        for stream in found.frozen
        if found.digests[stream] != expected[stream]
    ]
    if problems:
        raise UserError(problems)
