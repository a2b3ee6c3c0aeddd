"""Multistream v9: streams and MSKA into a memory, a text decoder from it to text.

Letters: B clips, T frames, S steps at stride 4, M model width, L text tokens, G glosses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from signstreams.backbones.load import Backbone
from signstreams.config.decoder import DecodingConfig
from signstreams.config.integrate import IntegrateConfig
from signstreams.integrate.batches import Batch
from signstreams.integrate.decoder import TextDecoder
from signstreams.integrate.fusion import FusionEncoder
from signstreams.integrate.mska import Mska

POSE_STREAM = "pose"
IMAGES_PER_CALL = 512  # crops that a trained backbone sees at once


@dataclass(frozen=True)
class Encoded:
    """What the encoder makes of a batch.

    Attributes:
        memory: (B, S, M), zero where masked.
        mask: (B, S) bool, True on the clip's own steps.
        gloss_logits: Head to (B, S, G); empty without glosses.
    """

    memory: Tensor
    mask: Tensor
    gloss_logits: dict[str, Tensor]


class MultistreamModel(nn.Module):
    """Encoder and decoder.

    Args:
        config: Of the run.
        feature_dims: Stream with crops, and ``pose``, to the width of its features.
        backbones: Stream to its backbone, of those that are trained; the others' features come with the batch.
        num_layers: Stream whose features come from every block of its backbone to the number of blocks.
        num_glosses: Size of the gloss vocabulary with its blank; None without glosses.
        decoder: From memory to text.
    """

    def __init__(
        self,
        config: IntegrateConfig,
        *,
        feature_dims: dict[str, int],
        backbones: dict[str, Backbone],
        num_layers: dict[str, int] | None = None,
        num_glosses: int | None,
        decoder: TextDecoder,
    ) -> None:
        super().__init__()
        width = config.model.d_model
        self.backbones = nn.ModuleDict(backbones)
        self.mska = Mska(config.mska, num_glosses) if config.model.use_mska else None
        step_dims = {f"mska_{stream}": self.mska.channels for stream in self.mska.encoders} if self.mska else {}
        self.fusion = FusionEncoder(feature_dims, step_dims, num_layers or {}, config.model)
        fusion = config.mska.gloss_fusion if self.mska is not None else "none"
        self.gloss_map: nn.Module | None = None
        self.gloss_join: nn.Module | None = None
        if fusion != "none":  # two layers, as MSKA's map from the fuse head to the text model
            self.gloss_map = nn.Sequential(
                nn.Linear(config.mska.head_dim, width),
                nn.ReLU(),
                nn.Dropout(config.model.dropout),
                nn.Linear(width, width),
            )
        if fusion == "concat":
            self.gloss_join = nn.Linear(2 * width, width)
        self.decoder = decoder
        self.max_tokens = config.decoder.max_tokens

    def encode(self, batch: Batch) -> Encoded:
        """Batch of clips to memory and gloss logits."""
        visual = {stream: self._visual(stream, batch) for stream in self.fusion.projectors}
        steps: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        fused = None
        if self.mska is not None:
            streams, logits, fused = self.mska(batch.nodes, batch.lengths)
            steps = {f"mska_{stream}": features for stream, features in streams.items()}
        memory, mask = self.fusion(visual, steps, batch.lengths)  # (B, S, M)
        if self.gloss_map is not None:
            gloss = self.gloss_map(fused) * mask[..., None]  # (B, S, M)
            if self.gloss_join is None:
                memory = memory + gloss
            else:
                memory = self.gloss_join(torch.cat((memory, gloss), dim=-1)) * mask[..., None]
        return Encoded(memory, mask, logits)

    def text_logits(self, encoded: Encoded, tokens: Tensor) -> Tensor:
        """Logits (B, L, vocabulary) of each token given those before it; ``tokens`` are (B, L) as in `Batch`."""
        logits: Tensor = self.decoder(encoded.memory, encoded.mask, tokens)
        return logits

    def translate(self, encoded: Encoded, decoding: DecodingConfig) -> list[list[int]]:
        """Beam search (greedy with one beam): token ids of each clip, the end token included where it came."""
        return self.decoder.generate(encoded.memory, encoded.mask, decoding, self.max_tokens)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Learning-rate group (backbone, mska, encoder, decoder) to its trainable parameters by name."""
        owner = {"backbones": "backbone", "mska": "mska", "decoder": "decoder"}
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(owner.get(name.partition(".")[0], "encoder"), []).append((name, parameter))
        return groups

    def _visual(self, stream: str, batch: Batch) -> tuple[Tensor, Tensor]:
        present = batch.present[stream]  # (B, T)
        if stream not in self.backbones:
            return batch.features[stream].float(), present
        backbone = self.backbones[stream]
        assert isinstance(backbone, Backbone)
        is_layered = self.fusion.projectors[stream].layer_weights is not None
        shape = (backbone.num_layers, backbone.embed_dim) if is_layered else (backbone.embed_dim,)
        features = torch.zeros(present.numel(), *shape, device=present.device)  # (B * T, D) or (B * T, L, D)
        encode = backbone.layer_tokens if is_layered else backbone
        images = batch.images[stream]  # (N, px, px, 3); none where the stream is missing throughout
        if len(images):
            parts = [encode(backbone.normalize(some)) for some in images.split(IMAGES_PER_CALL)]
            features = features.index_copy(0, batch.image_rows[stream], torch.cat(parts).float())
        return features.view(*present.shape, *shape), present
