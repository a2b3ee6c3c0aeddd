"""The model of a config, and weights taken from another run."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig

from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import Backbone
from signstreams.corpus import GlossVocabulary
from signstreams.corpus.findings import few
from signstreams.engine import checkpoint
from signstreams.engine.seeding import seed_global
from signstreams.errors import UserError
from signstreams.integrate.decoder import TextDecoder, named_config, own_config, take_pretrained
from signstreams.integrate.inputs import Backbones
from signstreams.integrate.model import POSE_STREAM, MultistreamModel
from signstreams.integrate.mska import MskaEncoder
from signstreams.integrate.results import TOKENIZER, beside
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.tokenizer import TextTokenizer
from signstreams.integrate.videos import POSE_DIM

log = logging.getLogger(__name__)

FORMAT = "signstreams_multistream_v9"
_DECODER = "decoder.net."
# tensors with a row for each token or gloss
_TOKEN_ROWS = re.compile(r"decoder\.net\.((.+\.)?(shared|embed_tokens|lm_head)\.weight|final_logits_bias)")
_GLOSS_ROWS = re.compile(r"mska\.heads\.[^.]+\.classify\.(weight|bias)")


def build_model(
    config: IntegrateConfig,
    backbones: Backbones,
    tokenizer: TextTokenizer,
    *,
    num_glosses: int | None,
    decoder_config: PretrainedConfig | None = None,
) -> MultistreamModel:
    """The model with its first weights, drawn by the seed; trained backbones and a pretrained decoder keep theirs.

    Args:
        config: Of the run.
        backbones: Of its streams.
        tokenizer: Of its texts.
        num_glosses: Size of the gloss vocabulary with its blank; None without glosses.
        decoder_config: Of a decoder whose weights come later, from a checkpoint of ours. None: as the config says.

    Raises:
        UserError: A named decoder is not there, or has fewer tokens than its tokenizer.
    """
    for net in backbones.trained.values():
        _open_blocks(net, config)
    seed_global(config.seed, "weights")
    settings = config.decoder
    is_new = decoder_config is None
    if decoder_config is None and settings.model is None:
        decoder_config = own_config(settings, config.model.d_model, len(tokenizer))
    elif decoder_config is None:
        decoder_config = named_config(settings, len(tokenizer) if settings.uses_own_tokenizer else None)
    if decoder_config.vocab_size < len(tokenizer):
        raise UserError(
            f"decoder.tokenizer: has {len(tokenizer)} tokens, but {settings.model} writes {decoder_config.vocab_size},"
            " expected no more; name the model's own"
        )
    decoder = TextDecoder(decoder_config, config.model.d_model, tokenizer.roles)
    if is_new and settings.model is not None and settings.weights == "pretrained":
        take_pretrained(decoder, settings)
    model = MultistreamModel(
        config,
        feature_dims=backbones.dims | ({POSE_STREAM: POSE_DIM} if config.model.use_pose else {}),
        backbones=backbones.trained,
        num_layers=backbones.num_layers if config.model.backbone_layers == "weighted" else None,
        num_glosses=num_glosses,
        decoder=decoder,
    )
    for encoder in model.mska.encoders.values() if model.mska is not None else ():
        assert isinstance(encoder, MskaEncoder)
        encoder.checkpoint_activations = config.optim.checkpoint_activations
    return model


def _open_blocks(net: Backbone, config: IntegrateConfig) -> None:
    """Let gradients reach the last blocks of a backbone, or all of it."""
    model = net.model
    if isinstance(model, VisionTransformer):
        model.mask_token.requires_grad_(False)  # nothing is masked here
        model.checkpoint_activations = config.optim.checkpoint_activations
    count = config.model.trainable_blocks
    if count is None:
        return
    blocks = getattr(model, "blocks", None)
    if blocks is None or count > len(blocks):
        found = "no blocks" if blocks is None else f"{len(blocks)} blocks"
        raise UserError(f"model.trainable_blocks: the backbone has {found}, expected at least {count}; lower it")
    model.requires_grad_(False)
    for part in (*list(blocks)[len(blocks) - count :], model.norm):
        part.requires_grad_(True)


def take_weights(
    model: MultistreamModel, path: Path, tokenizer: TextTokenizer, vocabulary: GlossVocabulary | None
) -> None:
    """Weights of another run's ``best.pt`` that fit by name and shape; the log names what stays as it was.

    Where that run had other tokens or glosses, their rows are taken by text and name: equal numbers mean nothing there.

    Args:
        model: Takes them.
        path: Of the checkpoint; its tokenizer lies beside it.
        tokenizer: Of this run's texts.
        vocabulary: Of this run's glosses; None without.

    Raises:
        UserError: No checkpoint of ours, its tokenizer is not there, or nothing of it fits.
    """
    try:
        content = checkpoint.load(path)
        state = content["model"]
        found = {name: tensor.shape for name, tensor in state.items()}
        gloss_names = content.get("glosses") or ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"train.init_checkpoint: {path}: is no checkpoint of a multistream run ({error}); name a best.pt"
        ) from None
    own = model.state_dict()
    tokens, glosses = None, None
    if any(_TOKEN_ROWS.fullmatch(name) for name in found):
        tokens = _shared_rows("tokens", tokenizer.ids, _tokenizer_beside(path).ids)
    if vocabulary is not None and any(_GLOSS_ROWS.fullmatch(name) for name in found):
        glosses = _shared_rows("glosses", _numbered(vocabulary.names), _numbered(gloss_names))
    fitting = {}
    for name, tensor in own.items():
        rows = tokens if _TOKEN_ROWS.fullmatch(name) else glosses if _GLOSS_ROWS.fullmatch(name) else None
        axis = int(name.endswith("final_logits_bias"))  # (1, tokens)
        taken = None if name not in found else _fitting(tensor, state[name], rows, axis)
        if taken is not None:
            fitting[name] = taken
    if not fitting:
        raise UserError(
            f"train.init_checkpoint: {path}: none of its {len(found)} tensors fits this model, expected equal names and"
            " sizes; use the config of that run"
        )
    _keep_tied(model, fitting)
    model.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting]
    unused = [name for name in found if name not in fitting]
    log.info("%s: %d of %d tensors taken", path, len(fitting), len(own))
    if left:
        log.warning("%d tensors keep their first weights: %s", len(left), few(left))
    if unused:
        log.warning("%d tensors of the checkpoint fit nothing here: %s", len(unused), few(unused))


def _tokenizer_beside(path: Path) -> TextTokenizer:
    file = beside(path, TOKENIZER)
    if not file.is_file():
        raise UserError(
            f"train.init_checkpoint: {path}: found no {file}, expected the tokenizer of that run, which says what its"
            " tokens are; copy it there"
        )
    return TextTokenizer.load(file)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _shared_rows(kind: str, ours: dict[str, int], theirs: dict[str, int]) -> list[tuple[int, int]] | None:
    """Rows of what both have, here and in the checkpoint; None where they are the same throughout."""
    if ours == theirs:
        return None
    rows = [(number, theirs[name]) for name, number in ours.items() if name in theirs]
    log.warning("%s: the checkpoint has others: %d of %d are taken, the rest start anew", kind, len(rows), len(ours))
    return rows


def _fitting(own: Tensor, theirs: Tensor, rows: list[tuple[int, int]] | None, axis: int) -> Tensor | None:
    """What is taken of a tensor of the checkpoint: all of it, or these rows put into our own; None where it does not
    fit."""
    if rows is None:
        return theirs if theirs.shape == own.shape else None
    if theirs.movedim(axis, 0).shape[1:] != own.movedim(axis, 0).shape[1:]:
        return None
    to, of = torch.tensor(rows, dtype=torch.long).view(-1, 2).unbind(dim=1)
    return own.cpu().index_copy(axis, to, theirs.index_select(axis, of).to(own.dtype))


def _keep_tied(model: MultistreamModel, fitting: dict[str, Tensor]) -> None:
    """Where the output layer is the token embeddings, one that the checkpoint has apart must not overwrite them."""
    output = f"{_DECODER}lm_head.weight"
    for name in model.decoder.tied_to_output_layer():
        embeddings = fitting.get(_DECODER + name)
        if embeddings is not None and output in fitting and not torch.equal(embeddings, fitting[output]):
            log.warning("the checkpoint's output layer is left out: here it is the token embeddings")
            fitting[output] = embeddings
