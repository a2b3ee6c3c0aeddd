"""Multistream v9: streams and MSKA are fused over time into a memory, from which a text decoder writes.

A whole language model (`LanguageModel`) makes the memory by itself, of the fused steps, which it reads as words.

Letters: B clips, T frames, S = ceil(T / 4) steps, D features, P projection width, M model width, L text tokens,
G glosses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import Backbone
from signstreams.engine.seeding import seed_global
from signstreams.errors import UserError
from signstreams.integrate.alignment import Alignment
from signstreams.integrate.batches import Batch
from signstreams.integrate.corpus_rules import TIME_STRIDE, num_steps
from signstreams.integrate.decoder import (
    LanguageModel,
    TextDecoder,
    load_pretrained_weights,
    named_config,
    own_t5_config,
    text_encoder,
)
from signstreams.integrate.mska import Mska, MskaEncoder, time_mask
from signstreams.integrate.settings import IntegrateConfig, ModelConfig
from signstreams.integrate.stage_settings import sees_video
from signstreams.integrate.stream_backbones import Backbones
from signstreams.integrate.text_model import Encoded, GlossModel, SentenceModel, TextModel, over_time, step_transformer
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.videos import POSE_DIM
from signstreams.integrate.vocabulary import pruned_config

POSE_STREAM = "pose"
MSKA_STREAMS = "mska"
"""What stream dropout calls the streams of MSKA, which it hides together: the body's nodes hold those of the hands."""
POOL_KERNEL = 7
IMAGES_PER_CALL = 512  # crops that a trained backbone encodes at once
INITIAL_GATE = 0.1
"""Initial weight of the streams of MSKA: beside features of pretrained backbones those of an untrained encoder are
noise, four times as large, and training is held up by turning them down."""


class StreamProjector(nn.Module):
    """Features of one visual stream to steps aligned with MSKA's (SignMusketeers projects its streams alike).

    Frames in which the stream is missing become a learned embedding; their features are ignored. Where ``num_layers``
    blocks of a backbone give features each, their weighted sum is learned, from equal weights.
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float, num_layers: int | None = None) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(num_layers)) if num_layers else None
        self.project = nn.Sequential(
            nn.LayerNorm(in_dim),
            nn.Linear(in_dim, out_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(out_dim, out_dim),
        )
        self.missing = nn.Parameter(torch.zeros(out_dim))
        # step s is centred on frame 4 s, as the two strided convolutions of MSKA are
        self.pool = nn.Conv1d(out_dim, out_dim, POOL_KERNEL, TIME_STRIDE, POOL_KERNEL // 2)

    def forward(self, features: Tensor, present: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, T, D) or (B, T, L, D), their presence (B, T) bool and the clips' frames (B,) to (B, S, P)."""
        if self.layer_weights is not None:
            features = torch.einsum("btld,l->btd", features, self.layer_weights.softmax(dim=0))
        x = torch.where(present[..., None], features, 0.0)  # NaN or noise in a missing frame goes no further
        x = torch.where(present[..., None], self.project(x), self.missing)  # (B, T, P)
        x = x * time_mask(lengths, x.shape[1])[..., None]  # padding looks like the end of the clip
        pooled: Tensor = self.pool(x.transpose(1, 2))  # (B, P, S)
        return pooled.transpose(1, 2)


class FusionEncoder(nn.Module):
    """The streams of a step, concatenated, through a Transformer over time.

    ``visual_dims`` are the feature widths of streams at the frame rate, ``step_dims`` those of streams at stride 4
    already (MSKA); ``num_layers`` is of streams with features of several blocks. Without a Transformer, which the
    encoder of a whole language model replaces, steps know neither their place nor each other.
    """

    def __init__(
        self,
        visual_dims: dict[str, int],
        step_dims: dict[str, int],
        num_layers: dict[str, int],
        config: ModelConfig,
        *,
        has_transformer: bool = True,
    ) -> None:
        super().__init__()
        width = config.projection_dim
        self.projectors = nn.ModuleDict(
            {
                name: StreamProjector(dim, width, config.dropout, num_layers.get(name))
                for name, dim in visual_dims.items()
            }
        )
        self.step_projectors = nn.ModuleDict(
            {name: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width)) for name, dim in step_dims.items()}
        )
        self.gates = nn.ParameterDict({name: nn.Parameter(torch.full((width,), INITIAL_GATE)) for name in step_dims})
        num_streams = len(visual_dims) + len(step_dims)
        self.fuse = nn.Sequential(nn.LayerNorm(num_streams * width), nn.Linear(num_streams * width, config.d_model))
        self.dropout = nn.Dropout(config.dropout)
        self.stream_dropout = config.stream_dropout
        self.encoder = step_transformer(config) if has_transformer else None

    def draw_kept(self, lengths: Tensor) -> dict[str, Tensor]:
        """Visual stream, and `MSKA_STREAMS` for those of MSKA together, to what is seen of it in training: (B, 1, 1)
        bool, drawn per clip. Empty where nothing is hidden: in evaluation, and without stream dropout."""
        if not (self.training and self.stream_dropout):
            return {}
        names = [*self.projectors, *([MSKA_STREAMS] if len(self.step_projectors) else [])]
        draws = torch.rand(len(names), len(lengths), 1, 1, device=lengths.device)
        return dict(zip(names, draws >= self.stream_dropout, strict=True))

    def forward(
        self,
        visual: dict[str, tuple[Tensor, Tensor]],
        steps: dict[str, Tensor],
        lengths: Tensor,
        kept: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> tuple[Tensor, Tensor]:
        """Memory (B, S, M), zero where masked, and mask (B, S) bool, True on the clip's own steps.

        From features (B, T, D) or (B, T, L, D) and presence (B, T) of each visual stream, (B, S, C) of the others, the
        frames (B,) of each clip, and what `draw_kept` leaves of the streams.
        """
        parts = [
            _seen(projector(*visual[name], lengths), kept.get(name)) for name, projector in self.projectors.items()
        ]
        parts += [
            _seen(self.gates[name] * projector(steps[name]), kept.get(MSKA_STREAMS))
            for name, projector in self.step_projectors.items()
        ]
        x = self.fuse(torch.cat(parts, dim=-1))  # (B, S, M)
        mask = time_mask(num_steps(lengths), x.shape[1])  # (B, S)
        return over_time(x, mask, self.dropout, self.encoder), mask


def _seen(features: Tensor, kept: Tensor | None) -> Tensor:
    """(B, S, D), zero where its stream is hidden; None: it never is."""
    return features if kept is None else features * kept


def visual_dims(config: ModelConfig, backbones: Backbones) -> dict[str, int]:
    """Widths of the visual streams, by their names in the fusion encoder: those of backbones, and the pose."""
    return backbones.dims | ({POSE_STREAM: POSE_DIM} if config.use_pose else {})


def mska_dims(mska: Mska | None) -> dict[str, int]:
    """Widths of MSKA's streams, by their names in the fusion encoder."""
    return {} if mska is None else {f"mska_{stream}": mska.channels for stream in mska.encoders}


def named_steps(streams: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs (B, S, C) of MSKA's streams by their names in the fusion encoder."""
    return {f"mska_{stream}": features for stream, features in streams.items()}


class MultistreamModel(TextModel):
    """Encoder and decoder.

    Where no text is learned (``mska.translation_weight`` 0), there is MSKA alone, and no ``decoder``.
    Features of streams without a (trained) backbone here come with the batch. ``feature_dims`` includes ``pose``;
    ``num_layers`` is of streams with features of all blocks; ``num_glosses`` counts the blank, None without glosses.
    With an ``alignment``, which is stage vlp, no text is written.
    """

    def __init__(
        self,
        config: IntegrateConfig,
        *,
        feature_dims: dict[str, int],
        backbones: dict[str, Backbone],
        num_layers: dict[str, int] | None = None,
        num_glosses: int | None,
        decoder: TextDecoder | None,
        alignment: Alignment | None = None,
    ) -> None:
        super().__init__()
        width = config.model.d_model
        self.learns_text = decoder is not None
        self.backbones = nn.ModuleDict(backbones if self.learns_text else {})
        self.backbone_layers = config.model.backbone_layers
        self.mska = Mska(config.mska, num_glosses) if config.model.use_mska else None
        step_dims = mska_dims(self.mska)
        self.max_tokens = config.decoder.max_tokens
        self.fusion: FusionEncoder | None = None
        self.gloss_map: nn.Module | None = None
        self.gloss_join: nn.Module | None = None
        self.mapper: nn.Module | None = None
        self.alignment: Alignment | None = None
        self.decoder = None
        if not self.learns_text:
            return
        fusion = config.mska.gloss_fusion if self.mska is not None else "none"
        is_whole = isinstance(decoder, LanguageModel)
        if fusion != "alone":
            self.fusion = FusionEncoder(
                feature_dims, step_dims, num_layers or {}, config.model, has_transformer=not is_whole
            )
        if fusion not in ("none", "alone"):  # two layers, as in MSKA between the fuse head and the text model
            self.gloss_map = nn.Sequential(
                nn.Linear(config.mska.head_dim, width),
                nn.ReLU(),
                nn.Dropout(config.model.dropout),
                nn.Linear(width, width),
            )
        if fusion == "concat":
            self.gloss_join = nn.Linear(2 * width, width)
        if isinstance(decoder, LanguageModel):  # MSKA and TwoStream: vl_mapper.py, of the fuse head's features
            in_dim, out_dim = config.mska.head_dim if fusion == "alone" else width, decoder.width
            self.mapper = nn.Sequential(nn.Linear(in_dim, out_dim), nn.ReLU(), nn.Linear(out_dim, out_dim))
        # the last ones: the state of an optimizer knows its parameters by their order
        self.decoder, self.alignment = decoder, alignment

    def encode(self, batch: Batch) -> Encoded:
        """Batch of clips to memory and gloss logits."""
        visual = {}
        if self.fusion is not None:
            visual = {stream: self._visual(stream, batch) for stream in self.fusion.projectors}
        steps: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        fused = None
        if self.mska is not None:
            streams, logits, fused = self.mska(batch.nodes, batch.lengths)
            steps = named_steps(streams)
        if not self.learns_text:
            mask = time_mask(num_steps(batch.lengths), max(batch.num_steps))  # (B, S)
            return Encoded(None, mask, logits)
        kept: dict[str, Tensor] = {}
        if self.fusion is not None:
            kept = self.fusion.draw_kept(batch.lengths)
            memory, mask = self.fusion(visual, steps, batch.lengths, kept)  # (B, S, M)
        else:
            assert fused is not None
            memory, mask = fused, time_mask(num_steps(batch.lengths), fused.shape[1])  # (B, S, D)
        if self.gloss_map is not None:
            # the fuse head sees every stream of MSKA: it is hidden with them
            gloss = _seen(self.gloss_map(fused) * mask[..., None], kept.get(MSKA_STREAMS))  # (B, S, M)
            if self.gloss_join is None:
                memory = memory + gloss
            else:
                memory = self.gloss_join(torch.cat((memory, gloss), dim=-1)) * mask[..., None]
        if self.mapper is not None:
            assert isinstance(self.decoder, LanguageModel)
            memory, mask = self.decoder.read(self.mapper(memory), mask)  # (B, E, W), (B, E)
        return Encoded(memory, mask, logits)

    def _visual(self, stream: str, batch: Batch) -> tuple[Tensor, Tensor]:
        present = batch.present[stream]  # (B, T)
        if stream not in self.backbones:
            return batch.features[stream].float(), present
        backbone = self.backbones[stream]
        assert isinstance(backbone, Backbone)
        shape = backbone.feature_shape(self.backbone_layers)
        features = torch.zeros(present.numel(), *shape, device=present.device)  # (B * T, D), (B * T, L, D) or 2 D wide
        images = batch.images[stream]  # (N, px, px, 3); N is 0 where the stream is missing everywhere
        if len(images):
            layers, calls = self.backbone_layers, images.split(IMAGES_PER_CALL)
            parts = [backbone.features(backbone.inputs(some, stream), layers) for some in calls]
            features = features.index_copy(0, batch.image_rows[stream], torch.cat(parts).float())
        return features.view(*present.shape, *shape), present


def build_model(
    config: IntegrateConfig,
    backbones: Backbones,
    tokenizer: Tokenizer,
    *,
    num_glosses: int | None,
    decoder_config: PretrainedConfig | None = None,
) -> TextModel:
    """The model of the config's stage with initial weights drawn by the seed; backbones and a pretrained decoder keep
    theirs.

    ``decoder_config`` is that of a decoder whose weights are loaded later, from our own checkpoint; None: follow
    ``config.decoder``. Where no text is learned there is none.

    Raises:
        UserError: A named decoder cannot be loaded, or has fewer tokens than its tokenizer.
    """
    for net in backbones.trained.values():
        _unfreeze_blocks(net, config)
    seed_global(config.seed, "weights")
    decoder = alignment = None
    if config.mska.learns_text:
        decoder, sizes = _build_decoder(config, tokenizer, decoder_config)
        if config.stage == "g2t":
            assert num_glosses is not None
            return GlossModel(config, num_glosses=num_glosses, decoder=decoder)
        if config.stage == "text":
            return SentenceModel(config, decoder=decoder)
        if config.stage == "vlp":
            sentences = None if config.decoder.is_whole else text_encoder(config.decoder, sizes)
            alignment = Alignment(sizes.d_model, sentences)
    model = MultistreamModel(
        config,
        feature_dims=visual_dims(config.model, backbones),
        backbones=backbones.trained,
        num_layers=backbones.num_layers,
        num_glosses=num_glosses,
        decoder=decoder,
        alignment=alignment,
    )
    for encoder in model.mska.encoders.values() if model.mska is not None else ():
        assert isinstance(encoder, MskaEncoder)
        encoder.checkpoint_activations = config.optim.checkpoint_activations
    return model


def _build_decoder(
    config: IntegrateConfig, tokenizer: Tokenizer, decoder_config: PretrainedConfig | None
) -> tuple[TextDecoder, PretrainedConfig]:
    """The text model and its sizes, as `build_model` is given them; of a whole language model with its encoder."""
    settings = config.decoder
    is_new = decoder_config is None
    if decoder_config is None and settings.model is None:
        decoder_config = own_t5_config(settings, config.model.d_model, len(tokenizer))
    elif decoder_config is None:
        decoder_config = named_config(settings, len(tokenizer) if settings.uses_own_tokenizer else None)
    num_needed = len(tokenizer) if tokenizer.rows is None else 1 + max(tokenizer.rows)
    if decoder_config.vocab_size < num_needed:
        raise UserError(
            f"decoder.tokenizer: has {num_needed} tokens, but {settings.model} has embeddings of"
            f" {decoder_config.vocab_size}, expected no more; name the model's own"
        )
    if is_new and tokenizer.rows is not None:
        decoder_config = pruned_config(decoder_config, tokenizer.rows)
    decoder: TextDecoder
    if settings.is_whole:
        decoder = LanguageModel(decoder_config, tokenizer.special)
        if sees_video(config.stage):  # a sentence of glosses or words is as short as its text
            _check_positions(config, decoder)
    else:
        decoder = TextDecoder(decoder_config, config.model.d_model, tokenizer.special)
    if is_new and settings.model is not None and settings.weights == "pretrained":
        load_pretrained_weights(decoder, settings, tokenizer.rows)
    return decoder, decoder_config


def _check_positions(config: IntegrateConfig, decoder: LanguageModel) -> None:
    """Every clip, and every text, must fit the positions of a language model that learned one embedding for each."""
    most, most_tokens = decoder.max_steps, decoder.max_tokens
    if most_tokens is not None and config.decoder.max_tokens > most_tokens:
        raise UserError(
            f"decoder.max_tokens: is {config.decoder.max_tokens:,}, but {config.decoder.model} writes at most"
            f" {most_tokens:,} tokens; lower it to that"
        )
    longest = round(config.data.max_frames * config.augmentation.time_scale[1])  # as `augment` stretches a clip
    if most is not None and num_steps(longest) > most:
        raise UserError(
            f"data.max_frames: clips of {config.data.max_frames:,} frames, {longest:,} by augmentation.time_scale, are"
            f" {num_steps(longest):,} steps, but {config.decoder.model} reads at most {most:,}; lower it to"
            f" {math.floor(most * TIME_STRIDE / config.augmentation.time_scale[1]):,}, or raise data.frame_stride"
        )


def _unfreeze_blocks(net: Backbone, config: IntegrateConfig) -> None:
    """Let the last blocks of a backbone train, or all of it."""
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
