"""MSKA's recognition network as its authors save it, with random weights, and what it computes in evaluation.

The names of the tensors, and how they enter the formulas, were read in sutwangyan/MSKA at e7d5610: recognition.py
(``Recognition``, ``DSTA``, ``STAttentionBlock``, ``PositionalEncoding``), Visualhead.py, utils.py (``MaskedNorm``,
``PositionwiseFeedForward``, ``PositionalEncoding``), model.py and train.py (what a file holds beside them); strides and
kernels in configs/phoenix-2014t_s2g.yaml. The formulas are written here over the tensors by name.

Letters: N clips, C channels, T frames, V joints, S heads of a block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from signstreams.integrate.settings import MskaConfig

JOINTS = {"left": 27, "right": 27, "face": 26, "body": 79}
# rows of the 79 points: 27 of the left side, 26 of the right without the nose, which stands first, 26 of the face
ROWS = {"left": [*range(27)], "right": [0, *range(27, 53)], "face": [*range(53, 79)], "body": [*range(79)]}
HEADS = {"fuse": ("left", "face", "right", "body"), "left": ("left", "face"), "right": ("right", "face")}
HEADS["body"] = ("body",)
BACKBONE = "visual_backbone_keypoint."
TABLES = ("atts", "pe")
State = dict[str, Tensor]


def blocks(config: MskaConfig) -> list[tuple[int, int, int, int]]:
    """In and out channels, kernel and stride of each block."""
    widths = config.channels
    return [
        (inputs, outputs, 7 if i == 0 else 3, 2 if i in (0, len(widths) // 2) else 1)
        for i, (inputs, outputs) in enumerate(zip([widths[0], *widths], widths, strict=False))
    ]


def network(config: MskaConfig, num_glosses: int, *, frames: int = 400, seed: int = 0) -> State:
    """All tensors of a recognition network of these sizes, below ``recognition_network.``, in float64."""
    rng = torch.Generator().manual_seed(seed)
    state: State = {}

    def layer(name: str, *shape: int) -> None:
        bound = 1.5 / math.sqrt(math.prod(shape[1:]))
        state[f"{name}.weight"] = (2 * torch.rand(shape, generator=rng, dtype=torch.float64) - 1) * bound
        state[f"{name}.bias"] = torch.randn(shape[0], generator=rng, dtype=torch.float64) * 0.1

    def norm(name: str, channels: int, *, is_batch: bool = True) -> None:
        drawn = torch.rand((4, channels), generator=rng, dtype=torch.float64)
        state[f"{name}.weight"], state[f"{name}.bias"] = drawn[0] + 0.5, drawn[1] - 0.5
        if is_batch:
            state[f"{name}.running_mean"], state[f"{name}.running_var"] = drawn[2] - 0.5, drawn[3] + 0.5
            state[f"{name}.num_batches_tracked"] = torch.tensor(88_700)

    def normed(name: str, outputs: int, inputs: int, kernel: int = 1) -> None:
        layer(f"{name}.0", outputs, inputs, kernel, 1)
        norm(f"{name}.1", outputs)

    for stream, joints in JOINTS.items():
        normed(f"{BACKBONE}{stream}_input_map", config.channels[0], 3)
        length, heads = frames, config.num_heads
        for number, (inputs, outputs, kernel, stride) in enumerate(blocks(config)):
            name = f"{BACKBONE}{stream}_graph_layers.{number}"
            drawn = torch.rand((1, heads, joints, joints + 1), generator=rng, dtype=torch.float64)
            state[f"{name}.alphas"] = 2 * drawn[:, :, :1, -1:]
            state[f"{name}.attention0s"] = (drawn[..., :-1] - 0.3) * 3 / joints
            state[f"{name}.atts"] = torch.zeros(1, heads, joints, joints)
            state[f"{name}.pes.pe"] = positions(joints, inputs).T[None, :, None].expand(-1, -1, length, -1).clone()
            layer(f"{name}.in_nets", 2 * heads * (outputs // 4), inputs, 1, 1)
            normed(f"{name}.out_nets", outputs, heads * inputs)
            normed(f"{name}.ff_nets", outputs, outputs)
            normed(f"{name}.out_nett", outputs, outputs, kernel)
            if inputs != outputs or stride != 1:
                normed(f"{name}.downs1", outputs, inputs)
                normed(f"{name}.downs2", outputs, inputs)
                normed(f"{name}.downt2", outputs, outputs)
            length = int(length / stride + 0.5)
    for head, streams in HEADS.items():
        name, width = f"{head}_visual_head", config.head_dim
        layer(f"{name}.fc1", width, config.channels[-1] * len(streams))
        norm(f"{name}.bn1.norm", width)
        state[f"{name}.pe.pe"] = positions(5000, width)[None]
        norm(f"{name}.feedforward.layer_norm", width, is_batch=False)
        layer(f"{name}.feedforward.pwff_layer.0", config.head_ff_dim, width, 3)
        layer(f"{name}.feedforward.pwff_layer.3", width, config.head_ff_dim, 3)
        norm(f"{name}.layer_norm", width, is_batch=False)
        layer(f"{name}.gloss_output_layer", num_glosses, width)
    return state


def positions(count: int, channels: int) -> Tensor:
    """(count, channels) sines and cosines, in float32 as they are saved."""
    rate = torch.exp(torch.arange(0, channels, 2).float() * -(math.log(10000.0) / channels))
    angle = torch.arange(count).float()[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


def is_table(name: str) -> bool:
    """Whether the tensor is no weight."""
    return name.rpartition(".")[2] in TABLES


def num_parameters(state: State, stream: str) -> int:
    """Learned values of a stream's encoder."""
    prefixes = (f"{BACKBONE}{stream}_input_map.", f"{BACKBONE}{stream}_graph_layers.")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = [n for n in state if n.startswith(prefixes) and not is_table(n) and not n.endswith(statistics)]
    return sum(state[name].numel() for name in learned)


def recognise(state: State, config: MskaConfig, points: Tensor) -> dict[str, Tensor]:
    """Logits (N, T / 4, glosses) of each head in evaluation, of points (N, T, 79, 3): x, y up, confidence."""

    def leaky(x: Tensor) -> Tensor:
        return torch.maximum(x, 0.1 * x)

    def norm(name: str, x: Tensor, axis: int = 1) -> Tensor:
        shape = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
        mean, variance, weight, bias = (
            state[f"{name}.{key}"].view(shape) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def joint_wise(name: str, x: Tensor) -> Tensor:
        out = torch.einsum("oc,nctv->notv", state[f"{name}.weight"][:, :, 0, 0], x)
        return out + state[f"{name}.bias"][:, None, None]

    def block(name: str, x: Tensor, kernel: int, stride: int) -> Tensor:
        count, _, frames, joints = x.shape
        both = joint_wise(f"{name}.in_nets", x + state[f"{name}.pes.pe"][:, :, :frames].double())
        inner = both.shape[1] // (2 * config.num_heads)
        both = both.view(count, 2, config.num_heads, inner, frames, joints)
        score = torch.einsum("nsctu,nsctv->nsuv", both[:, 0], both[:, 1]) / (inner * frames)
        attention = torch.tanh(score) * state[f"{name}.alphas"] + state[f"{name}.attention0s"]
        gathered = torch.einsum("nctu,nsuv->nsctv", x, attention).reshape(count, -1, frames, joints)

        def projected(part: str, given: Tensor) -> Tensor:
            place = f"{name}.{part}"
            return norm(f"{place}.1", joint_wise(f"{place}.0", given)) if f"{place}.0.weight" in state else given

        y = leaky(projected("downs1", x) + projected("out_nets", gathered))
        y = leaky(projected("downs2", x) + projected("ff_nets", y))
        weight, reach = state[f"{name}.out_nett.0.weight"][..., 0], kernel // 2
        framed = torch.nn.functional.pad(y, (0, 0, reach, reach))
        steps = range(0, frames, stride)
        taps = [torch.stack([framed[:, :, t + tap] for t in steps], dim=2) for tap in range(kernel)]
        z = sum(torch.einsum("oc,nctv->notv", weight[..., tap], taps[tap]) for tap in range(kernel))
        z = norm(f"{name}.out_nett.1", z + state[f"{name}.out_nett.0.bias"][:, None, None])
        return leaky(projected("downt2", y[:, :, ::stride]) + z)

    def encode(stream: str) -> Tensor:
        place = f"{BACKBONE}{stream}_input_map"
        x = points[:, :, ROWS[stream]].permute(0, 3, 1, 2)  # (N, 3, T, V)
        x = leaky(norm(f"{place}.1", joint_wise(f"{place}.0", x)))
        for number, (_, _, kernel, stride) in enumerate(blocks(config)):
            x = block(f"{BACKBONE}{stream}_graph_layers.{number}", x, kernel, stride)
        return x.mean(dim=3).transpose(1, 2)  # (N, T / 4, C)

    def layer_norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def over_time(name: str, x: Tensor) -> Tensor:
        framed = torch.nn.functional.pad(x, (0, 0, 1, 1))
        taps = [framed[:, tap : tap + x.shape[1]] @ state[f"{name}.weight"][..., tap].T for tap in range(3)]
        return taps[0] + taps[1] + taps[2] + state[f"{name}.bias"]

    encoded, logits = {stream: encode(stream) for stream in JOINTS}, {}
    for head, streams in HEADS.items():
        place = f"{head}_visual_head"
        x = torch.cat([encoded[stream] for stream in streams], dim=-1)
        x = x @ state[f"{place}.fc1.weight"].T + state[f"{place}.fc1.bias"]
        x = norm(f"{place}.bn1.norm", x, axis=-1).clamp(min=0)
        x = x + state[f"{place}.pe.pe"][:, : x.shape[1]].double()
        y = layer_norm(f"{place}.feedforward.layer_norm", x)
        y = over_time(f"{place}.feedforward.pwff_layer.0", y).clamp(min=0)
        x = layer_norm(f"{place}.layer_norm", x + over_time(f"{place}.feedforward.pwff_layer.3", y))
        logits[head] = x @ state[f"{place}.gloss_output_layer.weight"].T + state[f"{place}.gloss_output_layer.bias"]
    return logits


def saved(state: State, **others: Tensor) -> dict[str, object]:
    """What train.py writes of a model: in float32, beside the optimiser's state; ``others`` are of other networks."""
    model = {f"recognition_network.{name}": t.float() if t.is_floating_point() else t for name, t in state.items()}
    optimizer = {"state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
    scheduler = {"T_max": 100, "base_lrs": [1e-3], "last_epoch": 88}
    return {"model": model | others, "optimizer": optimizer, "scheduler": scheduler, "epoch": 88}
