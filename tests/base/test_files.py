"""Whole files or none, and what is read back from them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from signstreams.files import (
    digest,
    read_json,
    remove_leftovers,
    replacing,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.txt"]


WRITER = """
import sys, time
from signstreams.files import replacing
with replacing(sys.argv[1]) as part:
    part.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def start_writer() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Start a process that is in the middle of writing a file."""
    writers = []

    def start(path: Path) -> subprocess.Popen[bytes]:
        writers.append(subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE))
        assert writers[-1].stdout is not None and writers[-1].stdout.readline() == b"writing\n"
        return writers[-1]

    yield start
    for writer in writers:
        writer.kill()
        writer.wait()


def kill(writer: subprocess.Popen[bytes]) -> None:
    writer.kill()
    writer.wait()


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_takes_over_what_it_left(
    tmp_path: Path, start_writer: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    path = tmp_path / "señas 1.txt"
    write_text(path, "old")
    killed, alive = start_writer(path), start_writer(path)
    kill(killed)
    assert path.read_text() == "old" and len(os.listdir(tmp_path)) == 3
    write_text(path, "new")
    assert path.read_text() == "new"
    assert len(os.listdir(tmp_path)) == 2  # the part of the writer that lives is left alone
    kill(alive)
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [path.name]


def test_leftovers_go_at_the_start_of_a_stage_and_parts_of_living_writers_stay(
    tmp_path: Path, start_writer: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    deep = tmp_path / "face" / "video" / "a.jpg"
    killed = [start_writer(path) for path in (tmp_path / "a.txt", tmp_path / "face" / "a.zip", deep)]
    alive = start_writer(tmp_path / "pose" / "a.npz")
    for writer in killed:
        kill(writer)
    (tmp_path / "mine.part").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / ".other.part").touch()
    (tmp_path / ".a.01234567.part").symlink_to(tmp_path / "mine.part")
    remove_leftovers(tmp_path, tmp_path / "absent")
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"mine.part", ".hidden", ".other.part", ".a.01234567.part", "face", "pose"}
    assert len(os.listdir(tmp_path / "pose")) == 1 and len(os.listdir(deep.parent)) == 1  # alive; two folders down
    assert [path.name for path in (tmp_path / "face").iterdir()] == ["video"]
    kill(alive)
    remove_leftovers(tmp_path)
    assert not os.listdir(tmp_path / "pose")


def test_a_write_costs_the_same_in_a_large_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scandir", "listdir", "walk"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("the folder was listed"))
    for sync in (False, True):
        write_bytes(tmp_path / "a.npz", b"x", sync=sync)
    assert (tmp_path / "a.npz").read_bytes() == b"x"


def test_two_writers_of_a_file_at_once_both_end_and_one_whole_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["a"]


def test_a_file_is_written_where_nothing_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("signstreams.files.fcntl.flock", refuse)
    (tmp_path / ".a.01234567.part").touch()
    write_text(tmp_path / "a", "x")
    remove_leftovers(tmp_path)  # it cannot know whether somebody writes it
    assert (tmp_path / "a").read_text() == "x"
    assert set(os.listdir(tmp_path)) == {"a", ".a.01234567.part"}


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


def test_a_write_on_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """The kernel does not say what it could not write, and the part has a name that nobody knows."""
    with pytest.raises(OSError) as caught, replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
    with pytest.raises(FileNotFoundError) as other, replacing(tmp_path / "a.txt"):
        (tmp_path / "b.txt").read_text()
    assert other.value.filename == str(tmp_path / "b.txt")
