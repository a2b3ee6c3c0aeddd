"""Reading ``best.pt``: a trained model with backbones, tokenizer and glosses, or initial weights for another run."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from signstreams.corpus.findings import few
from signstreams.corpus.gloss import GlossVocabulary
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.integrate.decoder import decoder_config_from_json
from signstreams.integrate.model import MultistreamModel, build_model
from signstreams.integrate.results import TOKENIZER, beside
from signstreams.integrate.settings import IntegrateConfig, TrainedModelSection
from signstreams.integrate.stream_backbones import Backbones, load_backbones
from signstreams.integrate.tokenizer import SpecialTokens, Tokenizer
from signstreams.streams import BACKBONE_KEYS, BY_NAME

log = logging.getLogger(__name__)

FORMAT = "signstreams_multistream_v9"  # value of ``format`` in ``best.pt``


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and what it needs."""

    path: Path  # its checkpoint
    config: IntegrateConfig  # config of its training, with the backbones where they are now
    model: MultistreamModel  # the model in evaluation mode, on the CPU
    backbones: Backbones  # backbones of its streams
    tokenizer: Tokenizer  # tokenizer of its texts
    vocabulary: GlossVocabulary | None  # its glosses; None without
    head: str | None  # gloss head chosen on val
    about: dict[str, Any]  # what else the checkpoint holds: step, scores on val, extraction settings


def load_trained_model(given: TrainedModelSection) -> TrainedModel:
    """Load a checkpoint, its backbones, and its tokenizer from the same folder.

    A `UserError` says what is missing, damaged, or not what the model was trained with.
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
            f"{path}: holds the state of a training, expected a model chosen on val; name the best.pt beside it with"
            " --checkpoint"
        )
    config = _config(path, content, given)
    backbones = load_backbones(config)
    _check_backbones(path, content["backbone_sha256"], backbones)
    tokenizer = Tokenizer.load(beside(path, TOKENIZER), SpecialTokens.from_dict(content["token_roles"]))
    names = content["glosses"]
    vocabulary = None if names is None else GlossVocabulary(tuple(names))
    model = build_model(
        config,
        backbones,
        tokenizer,
        num_glosses=None if names is None else len(names),
        decoder_config=decoder_config_from_json(content["decoder"]),
    )
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: weights and tokenizer do not belong together ({reason}); train the model again"
        ) from None
    about = {key: value for key, value in content.items() if key not in ("model", "config", "glosses")}
    return TrainedModel(path, config, model.eval(), backbones, tokenizer, vocabulary, content["gloss_head"], about)


def _config(path: Path, content: dict[str, Any], given: TrainedModelSection) -> IntegrateConfig:
    """The config of its training, with the backbones where they are now."""
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
    tree["model"]["download"] = given.download  # a permission given to the training is not one for now
    try:
        return IntegrateConfig.model_validate(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{path}: its config does not fit this version of signstreams ({place}: {problem['msg']}); train the model"
            " again"
        ) from None


def _check_backbones(path: Path, expected: dict[str, str], found: Backbones) -> None:
    """Features of other backbones would mean nothing to the model; its trained backbones are in its own weights."""
    problems = [
        f"{BACKBONE_KEYS[stream]}: its SHA-256 is {found.digests[stream][:12]}, but {path} was trained with"
        f" {expected[stream][:12]}; name that file with {BY_NAME[stream].backbone_flag}, or train again"
        for stream in found.frozen
        if found.digests[stream] != expected[stream]
    ]
    if problems:
        raise UserError(problems)


# -- Weights for another run

_DECODER = "decoder.net."
# tensors with a row per token, or per gloss
_TOKEN_ROWS = re.compile(r"decoder\.net\.((.+\.)?(shared|embed_tokens|lm_head)\.weight|final_logits_bias)")
_GLOSS_ROWS = re.compile(r"mska\.heads\.[^.]+\.classify\.(weight|bias)")


def load_initial_weights(
    model: MultistreamModel, path: Path, tokenizer: Tokenizer, vocabulary: GlossVocabulary | None
) -> None:
    """Load the weights of another run's ``best.pt`` that fit by name and shape; the log lists the others.

    Where that run, whose tokenizer is beside its checkpoint, had other tokens or glosses than this one, their rows are
    matched by token and name, not by number.

    Raises:
        UserError: Not a checkpoint of ours, its tokenizer is missing, or nothing fits.
    """
    try:
        content = checkpoint.load(path)
        state = content["model"]
        found = {name: tensor.shape for name, tensor in state.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"train.init_checkpoint: {path}: is no checkpoint of a multistream run ({error}); name a best.pt"
        ) from None
    own = model.state_dict()
    tokens, glosses = None, None
    if any(_TOKEN_ROWS.fullmatch(name) for name in found):
        file = beside(path, TOKENIZER)
        if not file.is_file():
            raise UserError(
                f"train.init_checkpoint: {path}: found no {file}, expected the tokenizer of that run, which says what"
                " its tokens are; copy it there"
            )
        tokens = _common_rows("tokens", tokenizer.ids, Tokenizer.load(file).ids)
    if vocabulary is not None and any(_GLOSS_ROWS.fullmatch(name) for name in found):
        theirs = {name: number for number, name in enumerate(content.get("glosses") or ())}
        glosses = _common_rows("glosses", vocabulary.ids, theirs)
    fitting = {}
    for name, tensor in own.items():
        rows = tokens if _TOKEN_ROWS.fullmatch(name) else glosses if _GLOSS_ROWS.fullmatch(name) else None
        axis = int(name.endswith("final_logits_bias"))  # (1, tokens)
        taken = None if name not in found else _fit_rows(tensor, state[name], rows, axis)
        if taken is not None:
            fitting[name] = taken
    if not fitting:
        raise UserError(
            f"train.init_checkpoint: {path}: none of its {len(found)} tensors fits this model, expected equal names and"
            " sizes; use the config of that run"
        )
    _keep_tied(model, fitting)
    model.load_state_dict(fitting, strict=False)
    log.info("%s: %d of %d tensors loaded", path, len(fitting), len(own))
    if left := [name for name in own if name not in fitting]:
        log.warning("%d tensors keep their initial weights: %s", len(left), few(left))
    if unused := [name for name in found if name not in fitting]:
        log.warning("%d tensors of the checkpoint fit nothing here: %s", len(unused), few(unused))


def _common_rows(kind: str, ours: dict[str, int], theirs: dict[str, int]) -> list[tuple[int, int]] | None:
    """Rows, here and in the checkpoint, of what both have; None where all are the same."""
    if ours == theirs:
        return None
    rows = [(number, theirs[name]) for name, number in ours.items() if name in theirs]
    text = "%s: the checkpoint has other ones: %d of %d are loaded, the rest are trained from scratch"
    log.warning(text, kind, len(rows), len(ours))
    return rows


def _fit_rows(own: Tensor, theirs: Tensor, rows: list[tuple[int, int]] | None, axis: int) -> Tensor | None:
    """The tensor to load: that of the checkpoint, or our own with these rows of it; None where it does not fit."""
    if rows is None:
        return theirs if theirs.shape == own.shape else None
    if theirs.movedim(axis, 0).shape[1:] != own.movedim(axis, 0).shape[1:]:
        return None
    to, of = torch.tensor(rows, dtype=torch.long).view(-1, 2).unbind(dim=1)
    return own.cpu().index_copy(axis, to, theirs.index_select(axis, of).to(own.dtype))


def _keep_tied(model: MultistreamModel, fitting: dict[str, Tensor]) -> None:
    """Keep an output layer that is separate in the checkpoint from overwriting the embeddings it is tied to here."""
    output = f"{_DECODER}lm_head.weight"
    for name in model.decoder.names_tied_to_output_layer():
        embeddings = fitting.get(_DECODER + name)
        if embeddings is not None and output in fitting and not torch.equal(embeddings, fitting[output]):
            log.warning("the output layer of the checkpoint is not loaded: here it is tied to the token embeddings")
            fitting[output] = embeddings
