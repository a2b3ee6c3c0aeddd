"""Arrays of videos on disk: what counts as current, what is mapped, and what a crash or a full disk leaves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.integrate.array_store import JOURNAL, ArrayStore


def test_an_array_that_was_swapped_is_one_line(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path / "s")
    store.add("a", "source", np.zeros((4, 3), np.float16))
    np.save(store.path("a"), np.zeros((5, 3), np.float32))
    with pytest.raises(UserError, match=r"a\.npy: holds float32 \(5, 3\), expected <f2 \(4, 3\); remove the file"):
        ArrayStore(tmp_path / "s")["a"]
    store.path("a").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"a\.npy: .*; remove the file"):
        ArrayStore(tmp_path / "s")["a"]
    store.path("a").unlink()
    assert not store.is_current("a", "source")
    with pytest.raises(UserError, match=r"a\.npy: No such file or directory; remove"):
        ArrayStore(tmp_path / "s")["a"]


def test_few_maps_are_held_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signstreams.integrate.array_store.files_to_keep_open", lambda _: 2)
    store = ArrayStore(tmp_path)
    for number in range(5):
        store.add(str(number), "source", np.full((2, 2), number, np.float32))
    for number in (0, 1, 2, 3, 4, 0):
        assert store[str(number)][0, 0] == number
    assert store._mapped.cache_info()[:] == (0, 6, 2, 2)  # hits, misses, most, held
    assert store["4"] is store["4"] and store["0"] is store["0"]
    assert store._mapped.cache_info().misses == 6


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path / "s")
    (tmp_path / "s").write_bytes(b"a file stands there")
    with pytest.raises(UserError, match=r"cannot be written .*; free space there, or name another --features"):
        store.add("a", "source", np.zeros(3))
    with pytest.raises(UserError, match=r"cannot be read .*; name another --features"):
        ArrayStore(tmp_path / "s")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float16).reshape(4, 2, 3),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).T,
        np.linspace(0, 1, 7),
        np.zeros((0, 5), np.float16),
    ],
    ids=["layers", "of another order in memory", "times", "without frames"],
)
def test_an_array_comes_back_as_it_was_in_this_process_and_in_another(tmp_path: Path, array: np.ndarray) -> None:
    store = ArrayStore(tmp_path / "s")
    store.add("año 1", "source", array)
    for seen in (store, ArrayStore(tmp_path / "s")):
        assert seen.is_current("año 1", "source") and not seen.is_current("año 1", "another")
        assert not seen.is_current("b", "source")
        assert seen.num_frames("año 1") == len(array)
        found = seen["año 1"]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["año 1.npy", JOURNAL]


def test_an_array_is_mapped_and_not_read(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)
    store.add("a", "source", np.zeros((4, 3), np.float16))
    assert isinstance(store["a"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store["a"][0] = 1


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    store, values = ArrayStore(tmp_path), np.arange(6, dtype=np.float32).reshape(2, 3)
    store.add("a", "source", values)
    store.add("b", "source", np.asfortranarray(values))
    assert store.records["a"].sha256 == hashlib.sha256(values.tobytes()).hexdigest() == store.records["b"].sha256


def test_a_truncated_file_is_not_current(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)
    store.add("a", "source", np.zeros((4, 3), np.float16))
    os.truncate(store.path("a"), store.path("a").stat().st_size - 1)
    assert not store.is_current("a", "source")
    with pytest.raises(UserError, match=r"a\.npy: .*; remove the file and start again"):
        store["a"]


def test_the_last_line_of_a_video_counts(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)
    for number in range(3):
        store.add("a", f"source {number}", np.full((2, 2), number, np.float32))
        assert store["a"][0, 0] == number  # what was mapped before is let go
    assert len((tmp_path / JOURNAL).read_text().splitlines()) == 3
    assert [ArrayStore(tmp_path).is_current("a", f"source {number}") for number in range(3)] == [False, False, True]


def test_what_another_process_made_is_seen_after_reloading(tmp_path: Path) -> None:
    ours, theirs = ArrayStore(tmp_path), ArrayStore(tmp_path)
    ours.add("a", "old", np.zeros((4, 3), np.float16))
    assert not ours["a"].any()
    theirs.add("a", "new", np.ones((5, 3), np.float16))
    theirs.add("b", "source", np.ones((2, 3), np.float16))
    assert "b" not in ours.records
    ours.reload()
    assert ours.is_current("a", "new") and ours.is_current("b", "source")
    assert ours["a"].shape == (5, 3) and ours["a"].all()


@pytest.mark.parametrize(
    "torn", ['{"video": "cut sho', '{"video": "b", "source": "s", "shape": [2', "\x00\x00\x00", "[]"]
)
def test_a_line_that_a_crash_cut_short_hides_none_that_follows(tmp_path: Path, torn: str) -> None:
    store = ArrayStore(tmp_path)
    store.add("a", "source", np.zeros((4, 3), np.float16))
    with (tmp_path / JOURNAL).open("a") as file:
        file.write(torn)
    again = ArrayStore(tmp_path)
    assert list(again.records) == ["a"]
    again.add("c", "source", np.zeros((4, 3), np.float16))
    again.add("d", "source", np.zeros((4, 3), np.float16))
    assert list(ArrayStore(tmp_path).records) == ["a", "c", "d"]


def test_a_disk_that_fills_up_leaves_no_part(tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    store = ArrayStore(small_disk(64))
    store.add("a", "source", np.zeros(1000, np.float32))
    with pytest.raises(UserError, match=r"b\.npy: cannot be written \(No space left on device\); free space there"):
        store.add("b", "source", np.zeros(100_000, np.float32))
    assert sorted(path.name for path in store.folder.iterdir()) == ["a.npy", JOURNAL]
    assert "b" not in ArrayStore(store.folder).records and not store["a"].any()
