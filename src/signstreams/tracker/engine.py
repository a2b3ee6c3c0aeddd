"""Engines: what runs the models. A batch of images in, the outputs that are used out."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.tracker.models import MODELS, ModelFile, read_model


class Model(Protocol):
    """One model, ready to run."""

    @property
    def side_px(self) -> int:
        """Side of its square input."""
        ...

    def run(self, images: Pixels) -> tuple[Floats, ...]:
        """Outputs, (N, ...) float32 each, for (N, S, S, 3) uint8 RGB images; N may be 0."""
        ...


class Engine(Protocol):
    """Loads models by the names of `signstreams.tracker.models.MODELS`, each once."""

    def model(self, name: str) -> Model: ...


class LiteRtEngine:
    """LiteRT on the CPU, one thread: two videos on two cores take the time of one."""

    def __init__(self, folder: Path | None = None) -> None:
        self._models: dict[str, LiteRtModel] = {}
        self._folder = folder

    def model(self, name: str) -> LiteRtModel:
        """See `Engine`; loads the model at the first call."""
        if name not in self._models:
            self._models[name] = LiteRtModel(MODELS[name], read_model(name, self._folder))
        return self._models[name]


class QuietStderr:
    """Holds back what native code (LiteRT, MediaPipe, absl) writes to stderr within the block; shows it on failure.

    Cheap enough for every frame (0.01 ms). Not reentrant.
    """

    def __init__(self) -> None:
        self._held = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`

    def __enter__(self) -> None:
        sys.stderr.flush()
        self._held.seek(0)
        self._held.truncate()
        self._kept = os.dup(2)
        os.dup2(self._held.fileno(), 2)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        if kind is not None and issubclass(kind, Exception):  # Ctrl-C is no failure
            self._held.seek(0)
            os.write(2, self._held.read())

    def close(self) -> None:
        """Free the file."""
        self._held.close()


class LiteRtModel:
    """A model in LiteRT's interpreter, which takes one image at a time."""

    def __init__(self, file: ModelFile, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        quiet = QuietStderr()
        with quiet:  # it reports its delegate
            self._interpreter: Any = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        quiet.close()
        (entry,) = self._interpreter.get_input_details()
        self._input = entry["index"]
        self.side_px = int(entry["shape"][1])
        self._shape = tuple(int(size) for size in entry["shape"])
        by_name = {output["name"]: output for output in self._interpreter.get_output_details()}
        self._outputs = [by_name[name] for name in file.outputs]
        self._low = file.low

    def run(self, images: Pixels) -> tuple[Floats, ...]:
        """See `Model`."""
        results = [np.empty((len(images), *output["shape"][1:]), np.float32) for output in self._outputs]
        scale = np.float32((1 - self._low) / 255)
        for row, image in enumerate(images):
            values = image.astype(np.float32)  # (S, S, 3)
            values *= scale
            values += np.float32(self._low)
            self._interpreter.set_tensor(self._input, values[None])
            self._interpreter.invoke()
            for result, output in zip(results, self._outputs, strict=True):
                result[row] = self._interpreter.get_tensor(output["index"])[0]
        return tuple(results)


@cache
def shared_engine(folder: Path | None) -> LiteRtEngine:
    """The engine of this process with models from a folder, or from where they are kept: each is loaded once."""
    return LiteRtEngine(folder)
