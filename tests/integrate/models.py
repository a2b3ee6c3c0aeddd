"""A clip of noise and a small model of it, for tests that need no corpus."""

from __future__ import annotations

import numpy as np
import torch

from signstreams.integrate.batches import Sample
from signstreams.integrate.decoder import TextDecoder, own_t5_config
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.nodes import NUM_NODES
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.tokenizer import SpecialTokens
from signstreams.streams import STREAMS

DIM = 6


def sample(num_frames: int, seed: int = 0, *, missing: str = "hand_l", tokens: int = 4) -> Sample:
    rng = np.random.default_rng(seed)
    present = {stream: np.ones(num_frames, dtype=bool) for stream in (*STREAMS, "pose")}
    present[missing][num_frames // 2 :] = False
    return Sample(
        f"clip{seed}",
        rng.uniform(0.1, 1, (num_frames, NUM_NODES, 3)).astype(np.float32),
        rng.uniform(0, 1, (num_frames, 21)).astype(np.float32),
        present,
        {},
        {stream: rng.normal(size=(num_frames, DIM)).astype(np.float16) for stream in STREAMS},
        tokens=[*rng.integers(3, 300, tokens - 1).tolist(), 1],
        gloss_ids=[1],
    )


def decoder_of(config: IntegrateConfig) -> TextDecoder:
    width = config.model.d_model
    return TextDecoder(own_t5_config(config.decoder, width, 300), width, SpecialTokens())


def model_of(config: IntegrateConfig, num_glosses: int | None = 5) -> MultistreamModel:
    torch.manual_seed(0)
    dims = dict.fromkeys(STREAMS, DIM) | {"pose": 21}
    return MultistreamModel(
        config, feature_dims=dims, backbones={}, num_glosses=num_glosses, decoder=decoder_of(config)
    ).eval()
