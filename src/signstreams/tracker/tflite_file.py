"""Graphs of .tflite files: tensors, operators and their options, and the same file with fewer outputs.

A .tflite file is a FlatBuffer (https://flatbuffers.dev/internals): tables whose fields stand at offsets that are
relative to where they are written. Field numbers and codes are those of the TensorFlow Lite schema, version 3
(tensorflow/compiler/mlir/lite/schema/schema.fbs); only what MediaPipe's models hold is known here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from signstreams.array_types import Array, Ints
from signstreams.errors import UserError

_VERSION = 3
_MOST_VALUES = 2**24  # of a sparse tensor, whose size the file's own does not bound
_ResultT = TypeVar("_ResultT")

_DTYPES: dict[int, Any] = {0: np.float32, 1: np.float16, 2: np.int32}  # TensorType

Fields = dict[str, tuple[int, str, int]]  # of a table of options: name to number, struct format and default
_WINDOW: Fields = {"padding": (0, "b", 0), "stride_w": (1, "<i", 0), "stride_h": (2, "<i", 0)}
_OPERATORS: dict[int, tuple[str, Fields]] = {  # BuiltinOperator
    0: ("ADD", {"activation": (0, "b", 0)}),
    2: ("CONCATENATION", {"axis": (0, "<i", 0), "activation": (1, "b", 0)}),
    3: (
        "CONV_2D",
        _WINDOW | {"activation": (3, "b", 0), "dilation_w": (4, "<i", 1), "dilation_h": (5, "<i", 1)},
    ),
    4: (
        "DEPTHWISE_CONV_2D",
        _WINDOW | {"activation": (4, "b", 0), "dilation_w": (5, "<i", 1), "dilation_h": (6, "<i", 1)},
    ),
    5: ("DEPTH_TO_SPACE", {"block_size": (0, "<i", 0)}),
    6: ("DEQUANTIZE", {}),
    9: ("FULLY_CONNECTED", {"activation": (0, "b", 0), "weights_format": (1, "b", 0), "keep_num_dims": (2, "b", 0)}),
    14: ("LOGISTIC", {}),
    17: ("MAX_POOL_2D", _WINDOW | {"filter_w": (3, "<i", 0), "filter_h": (4, "<i", 0), "activation": (5, "b", 0)}),
    22: ("RESHAPE", {}),
    23: ("RESIZE_BILINEAR", {"align_corners": (2, "b", 0), "half_pixel_centers": (3, "b", 0)}),
    34: ("PAD", {}),
    40: ("MEAN", {"keep_dims": (0, "b", 0)}),
    45: (
        "STRIDED_SLICE",
        {
            name: (number, "<i", 0)
            for number, name in enumerate(("begin", "end", "ellipsis", "new_axis", "shrink_axis"))
        },
    ),
    54: ("PRELU", {}),
    124: ("DENSIFY", {}),
}


@dataclass(frozen=True)
class Tensor:
    """A value of the graph; ``content`` has this shape for a constant and is None for what is computed."""

    name: str
    shape: tuple[int, ...]
    content: Array | None


@dataclass(frozen=True)
class Operator:
    """One step: tensors by their numbers, -1 for one that is left out."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A model, its operators in an order in which they can run."""

    tensors: list[Tensor]
    operators: list[Operator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_graph(content: bytes, place: str) -> Graph:
    """The graph of a .tflite file with one subgraph.

    Raises:
        UserError: It is damaged, or holds what is not known here; ``place`` names it in the message.
    """
    return _read(lambda: _graph(content), place)


def with_outputs(content: bytes, names: Sequence[str], place: str) -> bytes:
    """The same model with some of its outputs, in the order of their ``names``, and without operators that only the
    others need.

    The lists of outputs and operators are shortened where they stand; everything else stays as it is.

    Raises:
        UserError: See `read_graph`; or it has no output of this name.
    """
    return _read(lambda: _with_outputs(content, names), place)


class _Damaged(Exception):
    """What is wrong with a file."""


def _read(read: Callable[[], _ResultT], place: str) -> _ResultT:
    try:
        return read()
    except _Damaged as error:
        reason = str(error)
    except (struct.error, ValueError, IndexError, OverflowError, MemoryError):  # an offset or a length that is none
        reason = "it is damaged"
    raise UserError(f"{place}: not a model that can be read ({reason}), expected one of MediaPipe's .tflite files")


# -- FlatBuffers


class _Table:
    """A table within a FlatBuffer, whose fields are known by their number. All reads stay within the buffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        vtable = at - _number(data, "<i", at)
        size = _number(data, "<H", vtable)
        self._fields = _numbers(data, "<u2", vtable + 4, size // 2 - 2)

    def place(self, number: int) -> int:
        """Where a field stands, 0 if it is left out."""
        offset = int(self._fields[number]) if number < len(self._fields) else 0
        return self.at + offset if offset else 0

    def number(self, number: int, form: str, default: int = 0) -> int:
        """A field that is a number of this struct format."""
        place = self.place(number)
        return _number(self.data, form, place) if place else default

    def target(self, number: int) -> int:
        """Where that stands to which a field refers, 0 if it is left out."""
        place = self.place(number)
        return place + _number(self.data, "<I", place) if place else 0

    def table(self, number: int) -> _Table | None:
        """A field that is a table."""
        target = self.target(number)
        return _Table(self.data, target) if target else None

    def vector(self, number: int, dtype: str) -> Array:
        """A field that is a vector of numbers; empty if it is left out."""
        target = self.target(number)
        count = _number(self.data, "<I", target) if target else 0
        return _numbers(self.data, dtype, target + 4, count)

    def places(self, number: int) -> list[int]:
        """Where the tables of a vector of tables stand."""
        offsets = self.vector(number, "<u4").astype(np.int64)
        return list((self.target(number) + 4 + 4 * np.arange(len(offsets)) + offsets).tolist())

    def tables(self, number: int) -> list[_Table]:
        """A field that is a vector of tables."""
        return [_Table(self.data, place) for place in self.places(number)]

    def text(self, number: int) -> str:
        """A field that is text."""
        return bytes(self.vector(number, "u1")).decode(errors="replace")


def _number(data: bytes, form: str, at: int) -> int:
    if at < 0:
        raise _Damaged("an offset leads out of it")
    (value,) = struct.unpack_from(form, data, at)
    return int(value)


def _numbers(data: bytes, dtype: str, at: int, count: int) -> Array:
    if count <= 0:
        return np.empty(0, dtype)
    if at < 0 or at + count * np.dtype(dtype).itemsize > len(data):
        raise _Damaged("a list leads out of it")
    return np.frombuffer(data, dtype, count, at)


# -- The schema: numbers of fields


def _subgraph(content: bytes) -> tuple[_Table, _Table]:
    """The model and its only subgraph."""
    if content[4:8] != b"TFL3":
        raise _Damaged("it does not begin like one")
    model = _Table(content, _number(content, "<I", 0))
    if (version := model.number(0, "<I")) != _VERSION:
        raise _Damaged(f"version {version} of the schema")
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise _Damaged(f"{len(subgraphs)} subgraphs")
    return model, subgraphs[0]


def _graph(content: bytes) -> Graph:
    model, subgraph = _subgraph(content)
    buffers = [buffer.vector(0, "u1") for buffer in model.tables(4)]
    codes = [max(code.number(0, "b"), code.number(3, "<i")) for code in model.tables(1)]
    tensors = [_tensor(table, buffers) for table in subgraph.tables(0)]
    operators = [_operator(table, codes, len(tensors)) for table in subgraph.tables(3)]
    return Graph(
        tensors,
        operators,
        _indices(subgraph.vector(1, "<i4"), len(tensors)),
        _indices(subgraph.vector(2, "<i4"), len(tensors)),
    )


def _indices(values: Ints, num_tensors: int, *, least: int = 0) -> tuple[int, ...]:
    if len(values) and not (least <= values.min() and values.max() < num_tensors):
        raise _Damaged("a tensor that it does not have")
    return tuple(values.tolist())


def _tensor(table: _Table, buffers: list[Array]) -> Tensor:
    shape = tuple(table.vector(0, "<i4").tolist())
    data = buffers[table.number(2, "<I")]
    name = table.text(3)
    if not len(data):
        return Tensor(name, shape, None)
    code = table.number(1, "b")
    if code not in _DTYPES:
        raise _Damaged(f"tensor type {code} of {name}")
    values = data.view(_DTYPES[code])
    sparsity = table.table(6)
    return Tensor(name, shape, values.reshape(shape) if sparsity is None else _dense(values, shape, sparsity, name))


def _dense(values: Array, shape: tuple[int, ...], sparsity: _Table, name: str) -> Array:
    """Content of a tensor of which only the ``values`` that are not zero are stored, row by row."""
    dims = sparsity.tables(2)
    if sparsity.vector(0, "<i4").tolist() != list(range(len(shape))) or len(dims) != len(shape):
        raise _Damaged(f"blocks or another order in the sparse tensor {name}")
    if math.prod(shape) > _MOST_VALUES:
        raise _Damaged(f"size of the sparse tensor {name}")
    result = np.zeros(shape, values.dtype)
    if len(values) > result.size:
        raise _Damaged(f"too many values in the sparse tensor {name}")
    nodes = np.zeros(1, np.int64)  # (N,) places of what is stored, along the dimensions so far
    for dim, size in zip(dims, shape, strict=True):
        if dim.number(0, "b") == 0:  # dense: every place is stored
            nodes = (nodes[:, None] * size + np.arange(size)).reshape(-1)
            continue
        starts, columns = (_compressed(dim, number) for number in (2, 4))  # of each place; of what is stored
        counts = np.diff(starts)
        if len(counts) != len(nodes) or starts[0] != 0 or starts[-1] != len(columns) or counts.min() < 0:
            raise _Damaged(f"the index of the sparse tensor {name}")
        if len(columns) and not (columns.min() >= 0 and columns.max() < size):
            raise _Damaged(f"the index of the sparse tensor {name}")
        nodes = np.repeat(nodes, counts) * size + columns
    result.reshape(-1)[nodes] = values
    return result


def _compressed(dim: _Table, number: int) -> Ints:
    """An index of a sparse dimension: a union of vectors of three widths, its kind and then its table."""
    kinds = {1: "<i4", 2: "<u2", 3: "u1"}
    kind, table = dim.number(number, "b"), dim.table(number + 1)
    if kind not in kinds or table is None:
        raise _Damaged("an index of a sparse tensor")
    return table.vector(0, kinds[kind]).astype(np.int64)


def _operator(table: _Table, codes: list[int], num_tensors: int) -> Operator:
    code = codes[table.number(0, "<I")]
    if code not in _OPERATORS:
        raise _Damaged(f"operator {code}")
    kind, fields = _OPERATORS[code]
    options = table.table(4)
    return Operator(
        kind,
        _indices(table.vector(1, "<i4"), num_tensors, least=-1),
        _indices(table.vector(2, "<i4"), num_tensors),
        {
            name: default if options is None else options.number(number, form, default)
            for name, (number, form, default) in fields.items()
        },
    )


def _with_outputs(content: bytes, names: Sequence[str]) -> bytes:
    _, subgraph = _subgraph(content)
    places, outputs = subgraph.places(0), subgraph.vector(2, "<i4").tolist()
    by_name = {_Table(content, places[index]).text(3): index for index in outputs}
    if absent := [name for name in names if name not in by_name]:
        raise _Damaged(f"no output {absent[0]}")
    kept = [by_name[name] for name in names]
    if kept == outputs:
        return content
    operators = subgraph.tables(3)
    rows = _needed([(table.vector(1, "<i4"), table.vector(2, "<i4")) for table in operators], kept)
    # An entry is the distance from itself to its table, which stands behind the list.
    first = subgraph.target(3) + 4
    distances = [operators[row].at - (first + 4 * place) for place, row in enumerate(rows)]
    lists = sorted([(subgraph.target(2), kept), (subgraph.target(3), distances)])
    view, start = memoryview(content), 0
    parts: list[bytes | memoryview] = []
    for at, values in lists:
        parts += [view[start:at], struct.pack(f"<I{len(values)}i", len(values), *values)]
        start = at + len(parts[-1])
    return b"".join([*parts, view[start:]])


def _needed(operators: list[tuple[Ints, Ints]], outputs: Iterable[int]) -> list[int]:
    """Rows of the operators, pairs of inputs and outputs, without which some of the ``outputs`` are not computed."""
    wanted, rows = set(outputs), []
    for row in reversed(range(len(operators))):
        inputs, made = (values.tolist() for values in operators[row])
        if not wanted.isdisjoint(made):
            wanted.update(inputs)
            rows.append(row)
    return rows[::-1]
