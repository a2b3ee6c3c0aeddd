"""Fixtures that several stages share: real input of ../shared, and the tiny demo corpus, rendered once a session."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

# Two processes on two cores: busy waiting of OpenMP threads would slow both down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# An installed Slurm that does not answer would hold up each start of Snakemake for 9 s; tests/slurm takes this back.
os.environ.setdefault("SLURM_CONF", os.devnull)
# Tests compare English texts, whatever the language of the machine; those of other languages set LC_ALL.
os.environ.pop("LANGUAGE", None)
os.environ["LC_ALL"] = "C.UTF-8"
# Tests start hundreds of processes: what one has compiled the others read.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PROJECT = Path(__file__).parents[1]
# Files of half a minute and more, the longest first: pytest-xdist hands out whole files in this order (with
# --no-loadscope-reorder), and a long one at the end would run alone.
LONG = (
    "docs/test_newcomer.py",
    "workflow/test_chain.py",
    "importers/test_trained.py",
    "pretrain/test_safety.py",
    "integrate/test_training.py",
    "pretrain/test_run.py",
    "extract/test_signer_tracking.py",
    "base/test_api.py",
    "docs/test_python.py",
    "engine/test_launch.py",
    "integrate/test_run.py",
    "integrate/test_cuda.py",
    "pretrain/test_cuda.py",
    "faults/test_kills.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Let signals end the tests and what they start, however the tests themselves were started."""
    _module("tests/stopping.py").install(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; tests of Ctrl-C inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    places = {PROJECT / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def _module(path: str) -> ModuleType:
    """The module in a file of the checkout that is part of no package."""
    folder, name = os.path.split(PROJECT / path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name.removesuffix(".py"))


@pytest.fixture(autouse=True)
def same_log_level() -> Iterator[None]:
    """A command that runs in-process sets the level of our loggers; the next test does not see it."""
    logger = logging.getLogger("signstreams")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def project() -> Path:
    """Root of the checkout."""
    return PROJECT


@pytest.fixture(scope="session")
def export_generated() -> ModuleType:
    """scripts/export_generated.py, which is no part of the library."""
    return _module("scripts/export_generated.py")


@pytest.fixture(scope="session")
def copy_checkout() -> Callable[[Path], Path]:
    """Makes a folder with the workflow's files, to run Snakemake in."""

    def copy(folder: Path) -> Path:
        folder.mkdir()
        for name in ("workflow", "scripts", "config", "src"):  # compiled files fit the copies: they keep their times
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("*.egg-info"))
        (folder / "profiles").symlink_to("workflow/profiles")
        for name in ("Snakefile", "environment.yml"):
            shutil.copy(PROJECT / name, folder)
        return folder

    return copy


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips, a real meta.csv and hand photos that lie beside the checkout, never in it."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real input is absent: {folder}")
    return folder


@pytest.fixture(scope="session")
def left_in_english() -> Callable[[str], list[str]]:
    """Texts of several words that a page in Spanish shows in English: see tests/base/catalogue.py."""
    return cast(Callable[[str], list[str]], _module("tests/base/catalogue.py").left_in_english)


@pytest.fixture(scope="session")
def pretend_cuda() -> Callable[[], AbstractContextManager[Any]]:
    """Pretends a GPU inside a `with`: see tests/pretend_cuda.py."""
    return cast(Callable[[], AbstractContextManager[Any]], _module("tests/pretend_cuda.py").pretend_cuda)


@pytest.fixture(scope="session")
def random_settings() -> ModuleType:
    """tests/random_settings.py."""
    return _module("tests/random_settings.py")


@pytest.fixture(scope="session")
def damage() -> ModuleType:
    """tests/damage.py."""
    return _module("tests/damage.py")


@pytest.fixture(scope="session")
def made_metadata() -> Callable[..., Any]:
    """``made_metadata(video_id, num_frames, size_px=, crop_px=)``: see tests/made_metadata.py."""
    return cast(Callable[..., Any], _module("tests/made_metadata.py").made_metadata)


@pytest.fixture(scope="session")
def run_two() -> Callable[..., None]:
    """``run_two(folder, script, *words)``: two processes of one run, see tests/two_processes.py."""
    return cast(Callable[..., None], _module("tests/two_processes.py").run_two)


@pytest.fixture
def stopped_at() -> Callable[..., AbstractContextManager[pytest.ExceptionInfo[SystemExit]]]:
    """``with stopped_at(step): pretrain(...)``: a signal arrives after that step, and the run has to leave by it."""
    from signstreams.engine.training_run import Stage, TrainingRun  # imports torch, which most tests do without
    from signstreams.processes import StopRequest

    @contextlib.contextmanager
    def stopped(step: int, number: int = signal.SIGTERM) -> Iterator[pytest.ExceptionInfo[SystemExit]]:
        original = TrainingRun._leave_if_asked

        def ask(self: TrainingRun, stage: Stage[Any], stop: StopRequest, step_s: float) -> None:
            if stage.step == step:
                os.kill(os.getpid(), number)
            original(self, stage, stop, step_s)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
            patch.setattr(TrainingRun, "_leave_if_asked", ask)
            yield left

    return stopped


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium: a `Browser` of docs/img/browser.py."""
    module = _module("docs/img/browser.py")
    path = module.find_browser()
    if path is None:
        pytest.skip("no Chromium or Chrome on PATH")
    with module.Browser(path) as found:
        try:
            found.version()
        except RuntimeError as error:
            pytest.skip(str(error))
        yield found


@pytest.fixture(scope="session")
def looks_well(browser: Any) -> Callable[..., None]:
    """Asserts that a page is whole and readable on a desktop and a phone, in a light and a dark room.

    It asks for no file but those that are ``shown`` in it.
    """

    from signstreams.pages.render import MAX_BYTES

    def look(page: Path, shown: Sequence[Path] = ()) -> None:
        assert page.stat().st_size <= MAX_BYTES
        for size, scheme in ((size, scheme) for size in ("desktop", "phone") for scheme in ("light", "dark")):
            seen = browser.look(page, size, scheme=scheme)
            own = {path.resolve().as_uri() for path in shown}
            # a browser stops reading a video once it knows its length
            complaints = [text for text in seen.complaints if not (own and text.endswith("net::ERR_ABORTED"))]
            assert (complaints, set(seen.requests)) == ([], own), (size, scheme)
            assert (seen.width_px <= seen.window_px, seen.too_wide) == (True, []), (size, scheme)
            assert seen.unreadable == [], (size, scheme)

    return look


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a file system of so many KiB."""
    places: list[Path] = []

    def mount(size_kib: int) -> Path:
        place = tmp_path / f"disk_{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount a tmpfs")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """``build_once(name, build)``: a folder that ``build`` fills once for all workers of pytest-xdist. Read only."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def build_folder(name: str, build: Callable[[Path], None]) -> Path:
        folder, finished = shared / name, shared / f"{name}.finished"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be building it
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                build(folder)
                finished.touch()
        return folder

    return build_folder


@pytest.fixture(scope="session")
def tiny_corpus(build_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Root of the demo corpus of size ``tiny``: videos, meta.csv, annotations, index, ground truth. Read only."""
    from signstreams.demo.corpus import render_corpus

    return build_once("tiny_corpus", lambda root: render_corpus(root, size="tiny", seed=0, jobs=2))


@pytest.fixture(scope="session")
def demo_run(build_once: Callable[[str, Callable[[Path], None]], Path], tiny_corpus: Path) -> Path:
    """A folder with `data/demo` and `work_dirs` as after `make demo`, but small: see tests/demo_run.py. Read only."""
    pytest.importorskip("cv2")
    pytest.importorskip("ai_edge_litert")
    build = _module("tests/demo_run.py").build
    return build_once("demo_run", lambda folder: build(folder, tiny_corpus))
