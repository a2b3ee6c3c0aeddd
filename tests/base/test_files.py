"""Whole files or none, and what is read back from them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from signstreams.files import digest, from_the_future, read_json, replacing, sha256_file, write_json, write_text


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


def test_a_write_on_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """The kernel does not say what it could not write, and the part has a name that nobody knows."""
    with pytest.raises(OSError) as caught, replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
    with pytest.raises(FileNotFoundError) as other, replacing(tmp_path / "a.txt"):
        (tmp_path / "b.txt").read_text()
    assert other.value.filename == str(tmp_path / "b.txt")


def test_files_of_a_clock_that_is_ahead_are_found(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("old", "ahead", "absent")]
    for path, ahead_s in zip(paths[:2], (0, 3600), strict=True):
        path.touch()
        os.utime(path, (path.stat().st_mtime + ahead_s,) * 2)
    assert from_the_future(paths) == [tmp_path / "ahead"]
