"""The model of a config, and weights taken from another run."""

from __future__ import annotations

import logging
from pathlib import Path

from transformers import PretrainedConfig

from signstreams.backbones.load import Backbone
from signstreams.backbones.vit import VisionTransformer
from signstreams.config.integrate import IntegrateConfig
from signstreams.corpus.findings import few
from signstreams.engine import checkpoint
from signstreams.engine.seeding import seed_global
from signstreams.errors import UserError
from signstreams.integrate.decoder import TextDecoder, named_config, own_config, take_pretrained
from signstreams.integrate.inputs import Backbones
from signstreams.integrate.model import POSE_STREAM, MultistreamModel
from signstreams.integrate.mska import MskaEncoder
from signstreams.integrate.text import TextTokenizer
from signstreams.integrate.videos import POSE_DIM

log = logging.getLogger(__name__)

FORMAT = "signstreams_multistream_v9"


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


def take_weights(model: MultistreamModel, path: Path) -> None:
    """Weights of another run's ``best.pt`` that fit by name and shape; the log names what stays as it was.

    Raises:
        UserError: No checkpoint of ours, or nothing of it fits.
    """
    try:
        state = checkpoint.load(path)["model"]
        found = {name: tensor.shape for name, tensor in state.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"train.init_checkpoint: {path}: is no checkpoint of a multistream run ({error}); name a best.pt"
        ) from None
    own = model.state_dict()
    fitting = {name: state[name] for name, tensor in own.items() if found.get(name) == tensor.shape}
    if not fitting:
        raise UserError(
            f"train.init_checkpoint: {path}: none of its {len(found)} tensors fits this model, expected equal names and"
            " sizes; use the config of that run"
        )
    model.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting]
    unused = [name for name in found if name not in fitting]
    log.info("%s: %d of %d tensors taken", path, len(fitting), len(own))
    if left:
        log.warning("%d tensors keep their first weights: %s", len(left), few(left))
    if unused:
        log.warning("%d tensors of the checkpoint fit nothing here: %s", len(unused), few(unused))
