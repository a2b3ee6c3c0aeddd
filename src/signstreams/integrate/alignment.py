"""Stage vlp: clips beside their sentences, and masked sentences restored; a translation without glosses starts from it.

As in GFSLT-VLP (Zhou et al. 2023, arXiv 2307.14768; zhoubenjia/GFSLT-VLP: models.py, train_vlp_v2.py): a clip and its
sentence are to have similar vectors, and different ones from all others in the batch, by which the encoder of clips
learns what the texts say; and the text decoder writes a sentence that an encoder read with its last words masked.

Letters: B clips of a batch, N of a joint batch or a split, S steps, L text tokens, E tokens that an encoder reads, W
width of the text decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signstreams.engine import distributed
from signstreams.engine.distributed import World
from signstreams.integrate.decoder import TextDecoder, places_in_source

FIRST_TEMPERATURE = 0.07  # models.py:208, as in CLIP
LARGEST_SCALE = 100.0  # of the logits, CLIP's bound against instability
_HASH_BASE = 1_000_003


class Pairs(NamedTuple):
    """Clips and their sentences as vectors of length 1, float32."""

    clips: Tensor  # (B, W)
    sentences: Tensor  # (B, W)
    texts: Tensor  # (B,) int64, equal for equal sentences


class Alignment(nn.Module):
    """What the stage adds to a model; no other stage takes its weights.

    ``width`` is that of the text decoder. ``text_encoder`` reads the embeddings of a sentence's tokens; None: the whole
    language model's own encoder does, which also reads the clips.
    """

    def __init__(self, width: int, text_encoder: nn.Module | None) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.project = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))

    @property
    def scale(self) -> Tensor:
        """Factor of the cosines, one over the temperature."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def pairs(self, decoder: TextDecoder, memory: Tensor, mask: Tensor, tokens: Tensor) -> Pairs:
        """Vectors of clips and sentences: means over what the decoder reads of them.

        From the memory (B, S, M) with its mask (B, S) bool, and the tokens (B, L) as in `Batch`.
        """
        clips = self.project(_mean(decoder.project(memory), mask))  # (B, W)
        sentences = _mean(*self.read(decoder, tokens))  # (B, W)
        clips, sentences = (F.normalize(vectors.float(), dim=-1) for vectors in (clips, sentences))
        return Pairs(clips, sentences, _hashed(tokens))

    def joint_loss(self, pairs: Pairs | None, num_clips: int, world: World) -> Tensor:
        """This process's share of `alignment_loss` of the joint batch of ``num_clips``, dealt to processes in turn.

        Gradients, summed over the processes, are those of one process with all clips. Every process must call it and go
        backward from it; one without a clip has no pairs.
        """
        if world.size == 1 and pairs is not None:
            return alignment_loss(pairs, self.scale)
        weight = self.project.weight
        own = torch.arange(world.rank, num_clips, world.size, device=weight.device)  # (B,)
        vectors = torch.zeros(num_clips, 2, len(weight), device=weight.device)
        texts = torch.zeros(num_clips, dtype=torch.int64, device=weight.device)
        if pairs is None:
            vectors.requires_grad_()
        else:
            vectors = vectors.index_copy(0, own, torch.stack((pairs.clips, pairs.sentences), dim=1))
            texts[own] = pairs.texts
        clips, sentences = distributed.joint_sum(vectors).unbind(dim=1)
        joint = Pairs(clips, sentences, distributed.all_reduce_sum(texts))
        return alignment_loss(joint, self.scale, slice(world.rank, None, world.size))

    def restored(self, decoder: TextDecoder, tokens: Tensor, mask_shares: Tensor) -> Tensor:
        """Logits (B, L, vocabulary) of sentences whose last words are masked, a share (B,) of each.

        As theirs, what the decoder reads has no gradient: the encoder of sentences learns from the alignment alone.
        """
        with torch.no_grad():
            memory, mask = self.read(decoder, tokens, mask_shares)
        return decoder.write(memory, mask, tokens)

    def read(self, decoder: TextDecoder, tokens: Tensor, mask_shares: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Memory (B, E, W) of sentences, tokens (B, L) as in `Batch`, and its mask (B, E) bool.

        Of a share (B,) of the words, the last ones, rounded up, nothing is seen but that they are there.
        """
        special = decoder.special
        start = int(special.first is not None)
        counts = (tokens >= 0).sum(dim=1) - start - 1  # (B,), without the end token
        words = tokens[:, start:-1]  # (B, L'); the end token of shorter rows is not chosen
        around = torch.tensor([*special.source_prefix, *special.source_suffix], device=tokens.device)
        chosen, keep = places_in_source(counts, words.shape[1], special)  # each (B, E)
        ids = torch.cat((words.clamp_min(0), around.expand(len(words), -1)), dim=1).gather(1, chosen)  # (B, E)
        inputs = decoder.net.get_decoder().embed_tokens(ids)  # (B, E, W), scaled by itself
        if mask_shares is not None:
            place = torch.arange(ids.shape[1], device=ids.device) - len(special.source_prefix)  # (E,)
            seen = counts - (mask_shares * counts).ceil().long()  # (B,)
            inputs = inputs * ~((place >= seen[:, None]) & (place < counts[:, None]))[..., None]
        encoder = decoder.net.get_encoder() if self.text_encoder is None else self.text_encoder
        memory: Tensor = encoder(inputs_embeds=inputs * keep[..., None], attention_mask=keep).last_hidden_state
        return memory * keep[..., None], keep


def _mean(rows: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, W) of those of the rows (B, S, W) that are not masked."""
    return (rows * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _hashed(tokens: Tensor) -> Tensor:
    """A number (B,) int64 for each row of tokens (B, L), whatever its padding; products overflow, alike everywhere."""
    powers = torch.full_like(tokens[0], _HASH_BASE).cumprod(dim=0)  # (L,)
    return ((tokens.clamp_min(-1) + 1) * powers).sum(dim=1)


def alignment_loss(pairs: Pairs, scale: Tensor, rows: slice = slice(None)) -> Tensor:
    """Contrastive loss of ``rows`` among all pairs, the mean of both directions, summed over these rows.

    A clip belongs to every sentence that reads like its own. As theirs (utils.py: KLLoss), the divergence from the
    distribution that is wanted, 0 where it is met.
    """
    same = (pairs.texts[:, None] == pairs.texts).float()  # (N, N)
    wanted = (same / same.sum(dim=1, keepdim=True))[rows]
    logits = scale * pairs.clips @ pairs.sentences.T  # (N, N)
    directions = (F.log_softmax(scores[rows], dim=1) for scores in (logits, logits.T))
    return torch.stack([F.kl_div(found, wanted, reduction="sum") for found in directions]).mean()


@dataclass(frozen=True)
class Retrieval:
    """How often the first of all candidates is right, in percent; a tie with a wrong one is not."""

    text_to_clip: float  # recall@1 of the clip by its sentence
    clip_to_text: float  # recall@1 of the sentence by its clip
    chance: float  # the same of a guess: one in N, more where sentences are repeated

    @property
    def mean(self) -> float:
        """Of both directions."""
        return (self.text_to_clip + self.clip_to_text) / 2


def retrieval(pairs: Pairs) -> Retrieval:
    """Retrieval among these pairs; a clip belongs to every sentence that reads like its own."""
    same = pairs.texts[:, None] == pairs.texts  # (N, N)
    cosines = pairs.clips @ pairs.sentences.T  # (N, N)

    def recall(scores: Tensor) -> float:
        right, wrong = (scores.masked_fill(hidden, -math.inf).amax(dim=1) for hidden in (~same, same))
        return 100 * (right > wrong).double().mean().item()

    return Retrieval(recall(cosines.T), recall(cosines), 100 * same.double().mean().item())


def joined(parts: Sequence[tuple[Sequence[int], Pairs]]) -> Pairs:
    """The pairs of all parts in the order of their rows, which are numbered without a gap."""
    order = torch.tensor([row for rows, _ in parts for row in rows]).argsort()
    return Pairs(*(torch.cat(tensors)[order] for tensors in zip(*(pairs for _, pairs in parts), strict=True)))
