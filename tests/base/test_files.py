"""Whole files or none; ids that stay in their folder; errors and progress as people see them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from signstreams.errors import UserError, exit_on_user_error, print_problems
from signstreams.files import digest, read_json, replacing, sha256_file, write_json, write_text
from signstreams.ids import check_id, printable, shown
from signstreams.progress import Progress, duration


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "señas 1.txt"
    write_text(path, "old")
    code = (
        "import sys, time\n"
        "from signstreams.files import replacing\n"
        "with replacing(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
    killed, alive = writers
    killed.kill()
    killed.wait()
    assert path.read_text() == "old" and len(os.listdir(tmp_path)) == 3
    write_text(path, "new")
    assert path.read_text() == "new"
    assert len(os.listdir(tmp_path)) == 2  # the part of the writer that lives is left alone
    alive.kill()
    alive.wait()
    write_text(path, "newer")
    assert os.listdir(tmp_path) == [path.name]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_keeps_accents_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"seña": [1, None]})
    assert "seña" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"seña": [1, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_a_file_name_that_is_no_utf8_is_written_and_read_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"im\xe1gen.png")
    write_json(tmp_path / "a.json", name)
    assert read_json(tmp_path / "a.json") == name
    assert digest(name) != digest("imágen.png")


def test_json_nested_too_deeply_is_no_json(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "[" * 100_000)
    with pytest.raises(ValueError, match="deep"):
        read_json(tmp_path / "a.json")


def test_digests_depend_on_content_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert sha256_file(tmp_path / "a").startswith("e3b0c442")
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


@pytest.mark.parametrize(
    "bad", ["", " a", "../x", "/etc", "a/b", "a\\b", "..", ".hidden", "a\0b", "a\nb", "a\u2028b", "x" * 201]
)
def test_an_id_that_could_leave_its_folder_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"is empty|separator|dot|control|long"):
        check_id(bad)


def test_an_id_with_spaces_quotes_and_accents_is_fine() -> None:
    text = 'señas d\'ayer "1" $(x)'
    assert check_id(text) == text
    assert shown("a\nñ") == r"'a\nñ'"


def test_what_steers_a_terminal_is_escaped_and_letters_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("señas·años 年 'x'") == "señas·años 年 'x'"
    odd = "\x1b[2J\r\n\t\x9b1m\u202e\u2028\udcff"
    assert printable(odd) == r"\x1b[2J\r\n\t\x9b1m\u202e\u2028\udcff"
    print_problems([odd], kind="warning")
    assert capsys.readouterr().err == f"warning: {printable(odd)}\n"
    progress = Progress(2, "videos", "extract")
    progress.advance(1, last=odd)
    assert progress.line().endswith(f"last {printable(odd)}")


def test_a_log_line_is_one_line_and_a_traceback_keeps_its_own() -> None:
    code = (
        "import logging; from signstreams.cli import start_logging; start_logging()\n"
        "log = logging.getLogger('signstreams.x')\n"
        "log.info('%s: cannot be read', 'ñ\\x1b[2J\\n.json')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('a bug')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, *rest = done.stderr.splitlines()
    assert (first, second) == (r"INFO ñ\x1b[2J\n.json: cannot be read", "ERROR a bug")
    assert rest[0].startswith("Traceback") and rest[-1].startswith("ZeroDivisionError")


def test_a_user_error_is_one_line_a_problem_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, exit_on_user_error():
        raise UserError(["a.csv: line 1\nbroken", "b.csv: absent"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: a.csv: line 1\\nbroken\nerror: b.csv: absent\n"


def test_only_the_first_rank_prints_a_user_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError("x")
    assert capsys.readouterr().err == ""


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        _ = 1 / 0


def test_ctrl_c_is_one_line_also_where_an_import_swallowed_it(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for swallows in (False, True):
            with pytest.raises(SystemExit) as left, exit_on_user_error("run again"):
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                except KeyboardInterrupt:
                    if not swallows:
                        raise
                raise AttributeError("module 'numpy' has no attribute 'ma'")
            assert left.value.code == 130
            assert capsys.readouterr().err == "stopped; run again\n"
            signal.signal(signal.SIGINT, signal.default_int_handler)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "from signstreams.errors import exit_on_user_error\n"
        "with exit_on_user_error():\n"
        "    for i in range(100000): print(i, flush=True)\n"
    )
    pipeline = f"{sys.executable} -c '{code}' | head -1"
    done = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True)
    assert done.stdout == "0\n"
    assert done.stderr == ""


def test_progress_in_a_log_is_plain_lines_with_rate_and_time_left() -> None:
    log = io.StringIO()
    with Progress(10, "frames", "extract", every_s=0.0, stream=log) as progress:
        progress.skip(4)
        progress.advance(2, loss=1.23456, stage="a")
        progress.advance(4)
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("extract: 6/10 frames, ")
    assert "left" in lines[0]
    assert lines[0].endswith("loss 1.235, stage a")
    assert lines[-1].startswith("extract: 10/10 frames")
    assert len(lines) == 2  # the end is said once
    assert "\r" not in log.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_a_bar() -> None:
    terminal = Terminal()
    with Progress(2, "frames", "extract", stream=terminal) as progress:
        progress.advance(2)
    assert terminal.getvalue().startswith("\r\x1b[K█")
    assert terminal.getvalue().endswith("\n")


def test_a_bar_never_wraps_and_a_terminal_without_codes_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    with Progress(2, "frames", "a rather long label", stream=terminal) as progress:
        progress._last_s = 0.0
        progress.advance(1)
    first, last = terminal.getvalue().split("\r\x1b[K")[1:]
    assert len(first) == 39 and "frames" in last
    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal()
    with Progress(2, "frames", "extract", stream=dumb) as progress:
        progress.advance(2)
    assert dumb.getvalue().startswith("extract: 2/2 frames")


def test_work_of_hours_prints_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("signstreams.progress.time.monotonic", lambda: now[0])
    log = io.StringIO()
    progress = Progress(None, "steps", "train", stream=log)
    counts = []
    for _ in range(3):
        for _ in range(3600):
            now[0] += 1
            progress.advance()
        counts.append(log.getvalue().count("\n") - sum(counts))
    assert counts[1:] == [60, 60] and 90 < counts[0] < 360


def test_durations_read_naturally() -> None:
    assert [duration(s) for s in (8, 200, 18120)] == ["8 s", "3 min 20 s", "5 h 02 min"]
