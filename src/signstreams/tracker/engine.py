"""Engines that run the models: images in, outputs out. A batch of images in, the outputs that are used out."""

from __future__ import annotations

from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.processes import QuietStderr
from signstreams.tracker.models import MODELS, ModelFile, read_model
from signstreams.tracker.tflite_file import with_outputs


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


class LiteRtModel:
    """A model in LiteRT's interpreter, one image at a time: batches cost as much for each image, and more from 4 on."""

    def __init__(self, file: ModelFile, content: bytes) -> None:
        with closing(QuietStderr()) as quiet, quiet:  # it tells which delegate it made
            from ai_edge_litert.interpreter import Interpreter

            content = with_outputs(content, file.outputs, file.name)
            self._interpreter: Any = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        (entry,) = self._interpreter.get_input_details()
        self._input = entry["index"]
        self.side_px = int(entry["shape"][1])
        outputs = self._interpreter.get_output_details()
        self._outputs = [(output["index"], tuple(map(int, output["shape"][1:]))) for output in outputs]
        self._scale, self._low = np.float32((1 - file.low) / 255), np.float32(file.low)

    def run(self, images: Pixels) -> tuple[Floats, ...]:
        """See `Model`."""
        results = [np.empty((len(images), *shape), np.float32) for _, shape in self._outputs]
        for row, image in enumerate(images):
            self._set_input(image)
            self._interpreter.invoke()
            for result, (index, _) in zip(results, self._outputs, strict=True):
                result[row] = self._interpreter.tensor(index)()[0]
        return tuple(results)

    def _set_input(self, image: Pixels) -> None:
        """Convert an image within the interpreter's memory, of which no view may live on when it runs."""
        (values,) = self._interpreter.tensor(self._input)()  # (S, S, 3)
        np.multiply(image, self._scale, out=values, dtype=np.float32)
        if self._low:
            values += self._low


@cache
def shared_engine(folder: Path | None, device: str = "") -> Engine:
    """The engine of this process with models from a folder, or from where they are kept: each is loaded once.

    ``device``: LiteRT if it is empty, else torch on that device.

    Raises:
        UserError: torch has no such device here.
    """
    if device:
        from signstreams.tracker.torch_engine import TorchEngine

        return TorchEngine(device, folder)
    return LiteRtEngine(folder)
