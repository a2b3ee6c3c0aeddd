"""What a user sees of an error, of Ctrl-C and of a reader that leaves; bugs keep their traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from signstreams.errors import UserError, exit_on_user_error, print_problems


def test_a_user_error_is_one_line_a_problem_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, exit_on_user_error():
        raise UserError(["a.csv: line 1\nbroken", "b.csv: absent"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: a.csv: line 1\\nbroken\nerror: b.csv: absent\n"


def test_what_steers_a_terminal_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_problems(["\x1b[2J\u202eseñas"], kind="warning")
    assert capsys.readouterr().err == "warning: \\x1b[2J\\u202eseñas\n"


def test_the_process_that_is_first_to_report_prints_a_user_error_whatever_its_rank(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    for is_first, expected in ((True, "error: x\n"), (False, "")):
        with pytest.raises(SystemExit) as left, exit_on_user_error(is_first=lambda answer=is_first: answer):
            raise UserError("x")
        assert (left.value.code, capsys.readouterr().err) == (2, expected)


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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_a_disk_refuses_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, exit_on_user_error():
        raise OSError(number, os.strerror(number), "a b.csv")
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: a b.csv: {os.strerror(number)}; ") and said.count("\n") == 1


def test_a_file_that_we_forgot_to_check_is_a_bug() -> None:
    with pytest.raises(FileNotFoundError), exit_on_user_error():
        os.stat("/no/such/file")


def test_an_error_without_a_problem_is_a_bug() -> None:
    assert str(UserError(line for line in ("a", "b"))) == "a\nb"
    with pytest.raises(ValueError, match="at least one problem"):
        UserError([])
