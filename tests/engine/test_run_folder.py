"""The folder of a run: resumed, refused with the difference, archived as a whole, locked; versions and commit."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from signstreams.engine.run_folder import Experiment, Fingerprint, commit, versions
from signstreams.errors import UserError

FILES = ["backbone.pt", "params.json"]
MINE = Fingerprint({"optim": {"lr": 0.001}, "seed": 0}, "data-a")
OTHER = Fingerprint({"optim": {"lr": 0.002}, "seed": 0}, "data-b")


def _leave_a_run(folder: Path, fingerprint: Fingerprint = MINE) -> None:
    with Experiment(folder, fingerprint, files=FILES) as experiment:
        (folder / "params.json").write_text('{"lr": 1}')
        (experiment.state / "backbone.pt").write_bytes(b"weights")
        experiment.publish("backbone.pt")


def test_an_equal_run_finds_its_state_even_when_every_output_was_deleted(tmp_path: Path) -> None:
    _leave_a_run(tmp_path)
    for name in FILES:
        (tmp_path / name).unlink()
    with Experiment(tmp_path, MINE, files=FILES) as experiment:
        assert (experiment.state / "backbone.pt").read_bytes() == b"weights"
        assert experiment.publish("backbone.pt").read_bytes() == b"weights"


def test_another_experiment_is_refused_with_the_difference(tmp_path: Path) -> None:
    _leave_a_run(tmp_path)
    with pytest.raises(UserError) as caught:
        Experiment(tmp_path, OTHER, files=FILES)
    assert len(caught.value.problems) == 1
    text = str(caught.value)
    assert "optim.lr is 0.001 there, 0.002 here" in text
    assert "data differ" in text
    assert "seed" not in text
    assert "--on-conflict archive" in text
    assert (tmp_path / "backbone.pt").read_bytes() == b"weights"


def test_archiving_says_what_differed_where_it_went_and_how_far_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _leave_a_run(tmp_path)
    (tmp_path / "state" / "metrics.jsonl").write_text('{"step": 20, "train/loss": 1}\n{"step": 340}\n{"st')
    Experiment(tmp_path, OTHER, files=FILES, on_conflict="archive").close()
    (line,) = [record.getMessage() for record in caplog.records]
    target = tmp_path / "previous" / MINE.digest[:12]
    assert "optim.lr is 0.001 there, 0.002 here; the data differ (digest data-a there, data-b here)" in line
    assert f"moved to {target} (it was logged up to step 340), starting at step 0" in line
    caplog.clear()
    Experiment(tmp_path, OTHER, files=FILES, on_conflict="archive").close()
    assert not caplog.records  # an equal run goes on
    Experiment(tmp_path, OTHER, files=FILES, on_conflict="archive", restart=True).close()
    assert "the same experiment, which was not to be resumed; moved to" in caplog.text
    assert "no step of it was logged" in caplog.text


def test_a_fingerprint_of_an_earlier_version_is_read_as_this_one_would_have_recorded_it(tmp_path: Path) -> None:
    _leave_a_run(tmp_path, Fingerprint({"optim": {"lr": 0.001}, "seed": 0, "old": 3}, "data-a"))

    def upgrade(config: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in config.items() if key != "old"}

    with Experiment(tmp_path, MINE, files=FILES, upgrade=upgrade) as experiment:
        assert (experiment.state / "backbone.pt").exists()
    with pytest.raises(UserError, match="old is 3 there, absent here"):
        Experiment(tmp_path, MINE, files=FILES)


def test_archiving_moves_the_earlier_experiment_and_loses_nothing(tmp_path: Path) -> None:
    _leave_a_run(tmp_path)
    (tmp_path / "my notes.txt").write_text("mine")
    with Experiment(tmp_path, OTHER, files=FILES, on_conflict="archive") as experiment:
        assert not (experiment.state / "backbone.pt").exists()
        assert not (tmp_path / "backbone.pt").exists()
    archive = tmp_path / "previous" / MINE.digest[:12]
    assert (archive / "backbone.pt").read_bytes() == b"weights"
    assert (archive / "state" / "backbone.pt").read_bytes() == b"weights"
    assert json.loads((archive / "params.json").read_text()) == {"lr": 1}
    assert (tmp_path / "my notes.txt").exists()


def test_the_same_experiment_archived_twice_gets_two_folders(tmp_path: Path) -> None:
    _leave_a_run(tmp_path)
    for _ in range(2):
        with Experiment(tmp_path, MINE, files=FILES, on_conflict="archive", restart=True) as experiment:
            (experiment.state / "backbone.pt").write_bytes(b"again")
    assert sorted(path.name for path in (tmp_path / "previous").iterdir()) == [
        MINE.digest[:12],
        f"{MINE.digest[:12]}-2",
    ]


def test_files_of_an_unknown_run_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "backbone.pt").write_bytes(b"precious")
    with pytest.raises(UserError, match="unknown run"):
        Experiment(tmp_path, MINE, files=FILES)
    with Experiment(tmp_path, MINE, files=FILES, on_conflict="archive"):
        pass
    assert (tmp_path / "previous" / "unknown" / "backbone.pt").read_bytes() == b"precious"


def test_a_restart_of_the_same_experiment_is_refused_without_leave(tmp_path: Path) -> None:
    _leave_a_run(tmp_path)
    with pytest.raises(UserError, match="not to be resumed"):
        Experiment(tmp_path, MINE, files=FILES, restart=True)


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with (
        Experiment(tmp_path, MINE, files=FILES),
        pytest.raises(UserError, match="another process is writing"),
    ):
        Experiment(tmp_path, MINE, files=FILES)
    Experiment(tmp_path, MINE, files=FILES).close()


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Experiment(tmp_path / "out", MINE, files=FILES)


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("links are not supported")

    monkeypatch.setattr(os, "link", no_links)
    _leave_a_run(tmp_path)
    assert (tmp_path / "backbone.pt").read_bytes() == b"weights"
    assert not os.path.samefile(tmp_path / "backbone.pt", tmp_path / "state" / "backbone.pt")


def test_artifacts_are_listed_with_size_and_checksum(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere.pt"
    elsewhere.write_bytes(b"abc")
    with Experiment(folder, MINE, files=FILES) as experiment:
        (folder / "params.json").write_text("{}")
        experiment.write_artifacts({"params": folder / "params.json", "backbone": elsewhere})
    listed = json.loads((folder / "artifacts.json").read_text())
    assert listed["params"]["file"] == "params.json"
    assert listed["backbone"]["file"] == str(elsewhere.resolve())
    assert listed["backbone"]["bytes"] == 3
    assert listed["backbone"]["sha256"].startswith("ba7816bf")


# -- Versions and commit


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_code_and_of_no_repository_around_it(tmp_path: Path) -> None:
    code, installed = tmp_path / "src" / "code.py", tmp_path / ".venv" / "code.py"
    for path in (code, installed):
        path.parent.mkdir()
        path.write_text("x = 1")
    assert commit(code) is None  # no repository
    git(tmp_path, "init", "-q")
    assert commit(code) is None  # none of its commits
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-qm", "code")
    assert commit(code) == git(tmp_path, "rev-parse", "HEAD")
    assert commit(installed) is None


def test_versions_start_with_the_code_and_leave_out_what_is_not_installed() -> None:
    found = versions()
    assert list(found)[:2] == ["signstreams", "python"]
    assert all(found.values())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_record_that_cannot_be_opened_is_no_unknown_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under Snakemake an unknown run is moved aside, and a finished training would begin from nothing."""
    Experiment(tmp_path / "run", Fingerprint({"lr": 1}, "d"), files=["best.pt"]).close()

    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("signstreams.engine.run_folder.read_json", fail)
    with pytest.raises(UserError, match=f"fingerprint.json: {os.strerror(number)}, expected the record of the run"):
        Experiment(tmp_path / "run", Fingerprint({"lr": 1}, "d"), files=["best.pt"], on_conflict="archive")
    assert (tmp_path / "run/state/fingerprint.json").is_file() and not (tmp_path / "run/previous").exists()
