"""MediaPipe Holistic as a detector, where it is installed: quiet, in flight, nobody where nobody is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mediapipe", reason="MediaPipe is optional: pip install 'signstreams[holistic]'")

from signstreams.extract.detectors import detections
from signstreams.extract.holistic import OUTPUTS, HolisticDetector, HolisticGraph, holistic_info, solution_class
from signstreams.extract.settings import ExtractConfig, HolisticConfig
from signstreams.extract.video import Frame, VideoReader
from signstreams.formats.landmarks import POSE
from signstreams.processes import QuietStderr


def test_an_empty_scene_has_nobody() -> None:
    with HolisticDetector(HolisticConfig()) as detector:
        keypoints = detector.detect(Frame(0.0, np.full((120, 160, 3), 127, np.uint8), False, 0))
    assert keypoints.shape == (543, 3) and keypoints.dtype == np.float32
    assert (keypoints == (-1, -1, 0)).all()


def test_the_detector_is_quiet_and_torch_and_plotting_stay_out() -> None:
    code = (
        "import sys, numpy as np\n"
        "import signstreams.extract.batch\n"
        "from signstreams.extract.holistic import HolisticDetector\n"
        "from signstreams.extract.settings import HolisticConfig\n"
        "from signstreams.extract.video import Frame\n"
        "with HolisticDetector(HolisticConfig()) as detector:\n"
        "    detector.detect(Frame(0.0, np.zeros((64, 64, 3), np.uint8), False, 0))\n"
        "print({'torch', 'matplotlib', 'matplotlib.pyplot'} & set(sys.modules))\n"
        "import matplotlib.figure\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("set()\n", "", 0)


def test_a_person_who_comes_late_brings_no_message(shared_data: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from signstreams.extract.settings import HolisticConfig\n"
        "from signstreams.extract.holistic import HolisticDetector\n"
        "from signstreams.extract.video import Frame, VideoReader\n"
        "with VideoReader(Path(sys.argv[1])) as reader, HolisticDetector(HolisticConfig()) as detector:\n"
        "    frame = next(reader.frames())\n"
        "    detector.detect(Frame(0.0, np.zeros_like(frame.image), False, 0))\n"
        "    print(max(detector.detect(frame)[:, 2].max() for _ in range(3)) > 0)\n"
    )
    clip = shared_data / "clips" / "lsat_one_signer_studio.gif"
    done = subprocess.run([sys.executable, "-c", code, clip], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_description_needs_no_import_and_holds_the_settings() -> None:
    config = ExtractConfig(videos=["v.mp4"], root="c", detector="holistic", holistic={"min_tracking_confidence": 0.25})
    info = holistic_info(config, "v")
    assert info.name == "mediapipe_holistic" and info.version
    assert info.settings == {
        "model_complexity": 1,
        "min_detection_confidence": 0.5,
        "min_tracking_confidence": 0.25,
        "stride": 1,
    }


def test_frames_in_flight_change_nothing(shared_data: Path) -> None:
    with VideoReader(shared_data / "clips" / "webcam_one_hand.mp4") as reader:
        read = [frame for _, frame in zip(range(24), reader.frames(), strict=False)]
    found = []
    for in_flight in (1, 3):
        with HolisticDetector(HolisticConfig(in_flight=in_flight)) as detector:
            found.append(np.stack([detection.keypoints for detection in detections(detector, read)]))
            assert detector.max_in_flight == in_flight
    assert np.array_equal(found[0], found[1])
    assert (found[0][:, POSE, 2] > 0).all()


def test_a_failing_graph_is_heard_of_and_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signstreams.extract.holistic._CHECK_S", 0.01)
    with QuietStderr():
        graph = HolisticGraph(solution_class("holistic", "Holistic")(model_complexity=1))
        graph.submit(np.zeros((64, 64, 3), np.uint8))
        assert graph.collect() == dict.fromkeys(OUTPUTS)
        graph._solution._graph.add_packet_to_input_stream(  # at a time that is past: the graph stops with an error
            stream="image", packet=graph._solution._make_packet(graph._image_type, np.zeros((8, 8, 3), np.uint8)).at(1)
        )
        with pytest.raises((RuntimeError, ValueError), match=r"[Tt]imestamp"):
            graph.submit(np.zeros((64, 64, 3), np.uint8))
            graph.collect()
