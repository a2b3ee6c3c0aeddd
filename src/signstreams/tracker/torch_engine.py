"""The same models in torch, in batches on any device: the graph of a .tflite file, operator by operator.

Values keep the layout of the file, (N, H, W, C); convolutions see them as (N, C, H, W) in channels-last memory, which
costs no copy. Source: how TensorFlow Lite defines the operators (tensorflow/lite/kernels), above all "same" padding, of
which an odd pixel goes to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.array_types import Floats, Pixels
from signstreams.errors import UserError
from signstreams.tracker.models import MODELS, ModelFile, read_model
from signstreams.tracker.tflite_file import Graph, Operator, read_graph, with_outputs

# Images at a time: on a CPU more gain nothing; on a GPU the values of 64 take about 1 GB.
MOST_IMAGES_CPU, MOST_IMAGES = 8, 64

Step = Callable[[list[Tensor]], Tensor]
"""From those inputs of an operator that are computed to its output."""


class TorchEngine:
    """See `signstreams.tracker.engine.Engine`; ``device`` is one of torch's, such as cpu, cuda:1 or mps.

    Raises:
        UserError: torch has no such device here.
    """

    def __init__(self, device: str = "cpu", folder: Path | None = None) -> None:
        try:
            self._device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"device {device}: torch cannot compute there ({reason}); choose cpu, or none") from None
        self._folder = folder
        self._models: dict[str, TorchModel] = {}

    def model(self, name: str) -> TorchModel:
        """See `Engine`; loads the model at the first call."""
        if name not in self._models:
            self._models[name] = TorchModel(MODELS[name], read_model(name, self._folder), self._device)
        return self._models[name]


class TorchModel:
    """A model as a list of torch functions.

    Raises:
        UserError: The file holds an operator, or a use of one, that is not known here.
    """

    def __init__(self, file: ModelFile, content: bytes, device: torch.device) -> None:
        self._graph = read_graph(with_outputs(content, file.outputs, file.name), file.name)
        self.side_px = self._graph.tensors[self._graph.inputs[0]].shape[1]
        self._device, self._low = device, file.low
        self._most_images = MOST_IMAGES_CPU if device.type == "cpu" else MOST_IMAGES
        self._steps = _steps(self._graph, device, file.name)

    def run(self, images: Pixels) -> tuple[Floats, ...]:
        """See `Model`."""
        starts = range(0, max(len(images), 1), self._most_images)
        # Without TF32, whose 10 bits would move points by some hundredths of a pixel.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts = [self._run(images[start : start + self._most_images]) for start in starts]
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def _run(self, images: Pixels) -> list[Floats]:
        if not len(images):
            return [np.empty((0, *self._graph.tensors[row].shape[1:]), np.float32) for row in self._graph.outputs]
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        values = {self._graph.inputs[0]: pixels.float().mul_((1 - self._low) / 255).add_(self._low)}  # (N, S, S, 3)
        for step, inputs, output, last in self._steps:
            values[output] = step([values[row] for row in inputs])
            for row in last:
                del values[row]
        return [values[row].float().cpu().numpy() for row in self._graph.outputs]


def _steps(graph: Graph, device: torch.device, place: str) -> list[tuple[Step, list[int], int, list[int]]]:
    """Function, computed inputs, output, and the values that nobody needs after it, of every step."""
    constants = {
        row: torch.from_numpy(np.array(tensor.content)).to(device)
        for row, tensor in enumerate(graph.tensors)
        if tensor.content is not None
    }
    steps: list[tuple[Step, list[int], int, list[int]]] = []
    for operator in graph.operators:
        if operator.kind in ("DENSIFY", "DEQUANTIZE"):  # weights: stored without their zeros, or in 16 bits
            if operator.inputs[0] not in constants:
                raise UserError(f"{place}: {operator.kind} of a computed value, expected one of a constant")
            constants[operator.outputs[0]] = constants[operator.inputs[0]].float()
            continue
        computed = [row for row in operator.inputs if row >= 0 and row not in constants]
        given = [constants.get(row) for row in operator.inputs]
        shape = graph.tensors[operator.outputs[0]].shape
        try:
            step = _BUILDERS[operator.kind](operator, given, shape)
        except _Unknown as error:
            raise UserError(f"{place}: {operator.kind} {error} is not known here; take the LiteRT engine") from None
        steps.append((step, computed, operator.outputs[0], []))
    needed = set(graph.outputs)
    for _, inputs, output, last in reversed(steps):
        last += [row for row in dict.fromkeys([*inputs, output]) if row not in needed]
        needed.update(inputs)
    return steps


# -- Operators


class _Unknown(Exception):
    """A use of an operator that MediaPipe's models do not make."""


Given = list[Tensor | None]
"""The operator's inputs that are constants, None for the computed ones."""
Shape = tuple[int, ...]


def _only(values: list[Tensor]) -> Tensor:
    (value,) = values
    return value


def _constant(given: Given, number: int) -> Tensor:
    value = given[number] if number < len(given) else None
    if value is None:
        raise _Unknown(f"without a constant as input {number}")
    return value


def _activated(operator: Operator) -> Callable[[Tensor], Tensor]:
    """The function that is applied to an operator's output, which it may change in place."""
    code = operator.options["activation"]
    if code == 0:
        return lambda values: values
    if code == 1:
        return lambda values: values.relu_()
    if code == 3:
        return lambda values: values.clamp_(0, 6)
    raise _Unknown(f"with activation {code}")


def _seen_by_channel(values: Tensor) -> Tensor:
    """(N, C, H, W) view of (N, H, W, C)."""
    return values.permute(0, 3, 1, 2)


def _stored_by_pixel(values: Tensor) -> Tensor:
    """(N, H, W, C) of (N, C, H, W)."""
    return values.permute(0, 2, 3, 1)


def _same_padding(operator: Operator, size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """What `F.pad` adds to (N, H, W, C) so that each stride gives an output: none, left, right, top, bottom."""
    if operator.options["padding"] == 1:  # valid
        return []
    padding = [0, 0]
    strides = operator.options["stride_h"], operator.options["stride_w"]
    for length, stride, reach, step in reversed(list(zip(size, strides, kernel, dilation, strict=True))):
        lacking = max((-(-length // stride) - 1) * stride + (reach - 1) * step + 1 - length, 0)
        padding += [lacking // 2, lacking - lacking // 2]
    return padding if any(padding) else []


def _padded(values: Tensor, padding: list[int], filled: float = 0.0) -> Tensor:
    return F.pad(values, padding, value=filled) if padding else values


def _convolution(operator: Operator, given: Given, shape: Shape) -> Step:
    weight = _constant(given, 1)  # (O, kH, kW, I), or (1, kH, kW, O) of one input channel each
    bias = given[2] if len(given) > 2 else None
    is_depthwise = operator.kind == "DEPTHWISE_CONV_2D"
    weight = weight.permute(3, 0, 1, 2) if is_depthwise else _seen_by_channel(weight)
    weight = weight.contiguous(memory_format=torch.channels_last)
    options, kernel = operator.options, tuple(weight.shape[2:])
    stride = options["stride_h"], options["stride_w"]
    dilation = options["dilation_h"], options["dilation_w"]
    activated = _activated(operator)
    if kernel == stride == (1, 1) and not is_depthwise:
        matrix = weight[:, :, 0, 0].contiguous()  # (O, I)
        return lambda inputs: activated(F.linear(_only(inputs), matrix, bias))

    def run(inputs: list[Tensor]) -> Tensor:
        values = _only(inputs)
        padding = _same_padding(operator, values.shape[1:3], kernel, dilation)
        around = [0, 0]
        if padding and padding[2] == padding[3] and padding[4] == padding[5]:  # the convolution does that itself
            padding, around = [], [padding[4], padding[2]]
        values = _seen_by_channel(_padded(values, padding))
        groups = values.shape[1] if is_depthwise else 1
        return activated(_stored_by_pixel(F.conv2d(values, weight, bias, stride, around, dilation, groups)))

    return run


def _max_pool(operator: Operator, given: Given, shape: Shape) -> Step:
    kernel = operator.options["filter_h"], operator.options["filter_w"]
    stride = operator.options["stride_h"], operator.options["stride_w"]
    activated = _activated(operator)

    def run(inputs: list[Tensor]) -> Tensor:
        values = _only(inputs)
        padding = _same_padding(operator, values.shape[1:3], kernel, (1, 1))
        values = _seen_by_channel(_padded(values, padding, -torch.inf))
        return activated(_stored_by_pixel(F.max_pool2d(values, kernel, stride)))

    return run


def _fully_connected(operator: Operator, given: Given, shape: Shape) -> Step:
    weight, bias = _constant(given, 1), given[2] if len(given) > 2 else None
    activated = _activated(operator)
    if operator.options["weights_format"]:
        raise _Unknown("with shuffled weights")
    return lambda inputs: activated(F.linear(_only(inputs).reshape(-1, weight.shape[1]), weight, bias))


def _add(operator: Operator, given: Given, shape: Shape) -> Step:
    activated = _activated(operator)
    if any(value is not None for value in given):
        raise _Unknown("of a constant")
    return lambda inputs: activated(inputs[0] + inputs[1])


def _pad(operator: Operator, given: Given, shape: Shape) -> Step:
    amounts = _constant(given, 1).flip(0).flatten().tolist()  # `F.pad` begins with the last dimension
    return lambda inputs: F.pad(_only(inputs), amounts)


def _prelu(operator: Operator, given: Given, shape: Shape) -> Step:
    slopes = _constant(given, 1)
    if slopes.numel() != slopes.shape[-1]:
        raise _Unknown("with a slope for each pixel")
    slopes = slopes.flatten()  # (C,)
    return lambda inputs: _stored_by_pixel(F.prelu(_seen_by_channel(_only(inputs)), slopes))


def _resize(operator: Operator, given: Given, shape: Shape) -> Step:
    if operator.options["align_corners"] or not operator.options["half_pixel_centers"]:
        raise _Unknown("between corners of pixels")
    size = list(shape[1:3])
    return lambda inputs: _stored_by_pixel(
        F.interpolate(_seen_by_channel(_only(inputs)), size=size, mode="bilinear", align_corners=False)
    )


def _reshape(operator: Operator, given: Given, shape: Shape) -> Step:
    if shape[0] != 1:
        raise _Unknown("across images")
    return lambda inputs: _only(inputs).reshape(-1, *shape[1:])


def _concatenation(operator: Operator, given: Given, shape: Shape) -> Step:
    axis, activated = operator.options["axis"], _activated(operator)
    if axis == 0 or any(value is not None for value in given):
        raise _Unknown("of images or constants")
    return lambda inputs: activated(torch.cat(inputs, axis))


def _depth_to_space(operator: Operator, given: Given, shape: Shape) -> Step:
    block = operator.options["block_size"]

    def run(inputs: list[Tensor]) -> Tensor:
        values = _only(inputs)
        values = values.reshape(*values.shape[:3], block, block, -1)  # (N, H, W, B, B, C)
        return values.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)  # (N, H B, W B, C)

    return run


def _mean(operator: Operator, given: Given, shape: Shape) -> Step:
    axes, keeps = _constant(given, 1).flatten().tolist(), bool(operator.options["keep_dims"])
    if 0 in axes:
        raise _Unknown("of several images")
    return lambda inputs: _only(inputs).mean(axes, keepdim=keeps)


def _strided_slice(operator: Operator, given: Given, shape: Shape) -> Step:
    if any(operator.options.values()):
        raise _Unknown("with open ends")
    bounds = [_constant(given, number).tolist() for number in (1, 2, 3)]
    parts = [slice(*bound) for bound in zip(*bounds, strict=True)]
    return lambda inputs: _only(inputs)[(slice(None), *parts[1:])]  # of each image


def _logistic(operator: Operator, given: Given, shape: Shape) -> Step:
    return lambda inputs: _only(inputs).sigmoid()


_BUILDERS: dict[str, Callable[[Operator, Given, Shape], Step]] = {
    "ADD": _add,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "DEPTH_TO_SPACE": _depth_to_space,
    "FULLY_CONNECTED": _fully_connected,
    "LOGISTIC": _logistic,
    "MAX_POOL_2D": _max_pool,
    "MEAN": _mean,
    "PAD": _pad,
    "PRELU": _prelu,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "STRIDED_SLICE": _strided_slice,
}
