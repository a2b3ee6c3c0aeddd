"""Parameter groups of multistream v9, and the average of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from signstreams.config.integrate import IntegrateConfig
from signstreams.integrate.model import MultistreamModel

_NO_DECAY = ("global_matrix", "alpha", "shared.weight", "relative_attention_bias.weight", "missing", "layer_weights")


def make_optimizer(config: IntegrateConfig, model: MultistreamModel) -> torch.optim.AdamW:
    """AdamW with the groups' own learning rates; norms, biases, embeddings and MSKA's matrices do not decay."""
    optim = config.optim
    peaks = {
        "encoder": optim.lr_encoder or optim.lr,
        "mska": optim.lr_mska or optim.lr,
        "decoder": optim.lr_decoder or optim.lr,
        "backbone": optim.lr_backbone or optim.lr / 10,
    }
    groups = []
    for name, parameters in model.groups().items():
        for decays in (True, False):
            chosen = [p for key, p in parameters if _decays(key, p) == decays]
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "name": name,
                        "peak_lr": peaks[name],
                        "lr": peaks[name],
                        "weight_decay": optim.weight_decay if decays else 0.0,
                    }
                )
    return torch.optim.AdamW(groups)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(_NO_DECAY)


class WeightAverage:
    """Exponential moving average of the trainable weights (Polyak and Juditsky 1992).

    The first steps forget faster, (1 + n) / (10 + n), so that the average does not remember the random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._kept = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        torch._foreach_lerp_(list(self._kept.values()), [p.detach() for p in self._live.values()], 1 - decay)

    @contextlib.contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside the block."""
        own = {name: p.detach().clone() for name, p in self._live.items()}
        for name, p in self._live.items():
            p.copy_(self._kept[name])
        try:
            yield
        finally:
            for name, p in self._live.items():
                p.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor | int]:
        """Average and number of updates."""
        return {"num_updates": self.num_updates, **{f"average.{name}": t for name, t in self._kept.items()}}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Go on from `state_dict`.

        Raises:
            KeyError: It is of another model.
        """
        for name, kept in self._kept.items():
            kept.copy_(state[f"average.{name}"])  # type: ignore[arg-type]
        self.num_updates = int(state["num_updates"])
