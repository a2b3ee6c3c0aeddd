"""LiteRT as engine: the outputs that are used, bit by bit those of the whole model; quiet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from signstreams.tracker.engine import LiteRtEngine
from signstreams.tracker.models import MODELS, read_model
from signstreams.tracker.regions import cut, whole_frame


@pytest.fixture(scope="module")
def engine(models: Path) -> LiteRtEngine:
    return LiteRtEngine(models)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_whole_model(name: str, engine: LiteRtEngine, models: Path, frames: list) -> None:
    file, model = MODELS[name], engine.model(name)
    whole = Interpreter(model_content=read_model(name, models), num_threads=1)
    whole.allocate_tensors()
    by_name = {output["name"]: output["index"] for output in whole.get_output_details()}
    images = [cut([frame], [0], whole_frame(*frame.shape[1::-1])[None], model.side_px)[0] for frame in frames[::3]]
    found = model.run(np.stack(images))
    for row, image in enumerate(images):
        values = image.astype(np.float32) * np.float32((1 - file.low) / 255) + np.float32(file.low)
        whole.set_tensor(whole.get_input_details()[0]["index"], values[None])
        whole.invoke()
        for output, values in zip(file.outputs, found, strict=True):
            assert values.dtype == np.float32
            assert np.array_equal(values[row], whole.get_tensor(by_name[output])[0])


def test_no_images_give_no_outputs(engine: LiteRtEngine) -> None:
    model = engine.model("hand_landmarks")
    assert [output.shape for output in model.run(np.empty((0, 224, 224, 3), np.uint8))] == [(0, 63), (0, 1), (0, 1)]


def test_what_is_not_used_is_not_computed(engine: LiteRtEngine) -> None:
    for name, most in (("pose_landmarks", 282), ("hand_landmarks", 162)):  # of 332 and 165 operators
        operators = engine.model(name)._interpreter._get_ops_details()
        assert len([operator for operator in operators if operator["op_name"] != "DELEGATE"]) == most


def test_loading_says_nothing(models: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from signstreams.tracker.engine import LiteRtEngine\n"
        "LiteRtEngine(Path(sys.argv[1])).model('hand_recrop').run(np.zeros((1, 256, 256, 3), np.uint8))\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, models], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("False\n", "", 0)
