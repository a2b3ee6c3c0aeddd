"""The release bundle: what is in, what stays out, checksums that hold, an older one that is replaced."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from signstreams.commands import main
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.publish.release import SUMS, write_release
from signstreams.publish.settings import ReleaseConfig

from .conftest import as_of_before, change_judge, put_another_first


def release(run: Any, folder: Path, project: Path, **options: Any) -> list[str]:
    config = ReleaseConfig(root=run.root, work_dir=run.work_dir, settings='{"seed": 7}', output=folder, **options)
    return [path.as_posix() for path in write_release(config, project)]


def test_the_bundle_holds_what_another_group_needs(finished: Any, project: Path, tmp_path: Path) -> None:
    files = release(finished, tmp_path / "release", project)
    for stream in ("face", "hand_l", "hand_r"):
        for name in ("backbone.pt", "backbone.safetensors", "README.md", "params.json", "metrics.jsonl", "curves.png"):
            assert f"backbones/{stream}/{name}" in files
    expected = {"translation/best.pt", "translation/scores.json", "environment/requirements.lock", "workflow.json"}
    assert expected <= set(files)
    assert json.loads((tmp_path / "release/environment/versions.json").read_text())["signstreams"]
    text = (tmp_path / "release/README.md").read_text(encoding="utf-8")
    assert "| face | vit_tiny | 3,162 | 2,000 | 4.00 | 5.54 | 200.00 | – | – |" in text
    assert "| hand_l | vit_tiny | 3,162 | 2,000 | 4.00 | 5.54 | 200.00 | 92 % | 88 % |" in text
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert picture in files
    assert "backbones/face/curves.png" in text and "signstreams translate video.mp4 --checkpoint ." in text
    assert "BLEU-4 5.9" in text and "20 videos" in text


def test_it_is_the_same_in_every_language(
    with_sequence: Any, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(with_sequence, tmp_path / "release", project)
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")
    release(with_sequence, tmp_path / "other", project)
    sums = [(tmp_path / name / SUMS).read_text() for name in ("release", "other")]
    assert sums[0] == sums[1] and "hidden steps predicted" in (tmp_path / "other/README.md").read_text(encoding="utf-8")


def test_without_a_model_nothing_is_said_of_translating(finished: Any, project: Path, tmp_path: Path) -> None:
    shutil.rmtree(finished.work_dir / "multistream_v9")
    shutil.rmtree(finished.work_dir / "dino_face")
    release(finished, tmp_path / "release", project)
    text = (tmp_path / "release/README.md").read_text(encoding="utf-8")
    assert "translat" not in text.lower() and 'ss.load_backbone("backbones/hand_l")' in text


def test_people_texts_and_machines_stay_out(finished: Any, project: Path, tmp_path: Path) -> None:
    files = release(finished, tmp_path / "release", project)
    params = json.loads((tmp_path / "release/backbones/face/params.json").read_text())
    assert params["architecture"] == "vit_tiny" and params["host"] is None
    assert not [name for name in files if "neighbours" in name or "attention" in name or name.endswith(".html")]
    assert "translation/predictions.csv" not in files
    assert "translation/predictions.csv" in release(finished, tmp_path / "release", project, predictions=True)


def test_what_is_not_there_is_not_promised(finished: Any, project: Path, tmp_path: Path) -> None:
    release(finished, tmp_path / "whole", project)
    assert "ss.load_translator" in (tmp_path / "whole/README.md").read_text()
    (finished.work_dir / "multistream_v9" / "best.pt").unlink()
    (finished.work_dir / "dino_hand_l" / "params.json").unlink()  # weights of another's
    files = release(finished, tmp_path / "release", project)
    text = (tmp_path / "release/README.md").read_text(encoding="utf-8")
    assert "backbones/hand_l/backbone.pt" in files and "| hand_l | – | – | – | – | – | – |" in text
    assert not any(name.startswith("translation") for name in files)
    assert "translat" not in text.lower()


def change_config(run: Any, digests: dict[str, str], **more: Any) -> None:
    path = run.work_dir / "multistream_v9" / "config.json"
    path.write_text(json.dumps({"backbone_sha256": digests, **more}))


def test_the_command_names_the_models_own_streams_and_what_it_needs_besides(
    finished: Any, project: Path, tmp_path: Path
) -> None:
    face, hand_l = (sha256_file(finished.work_dir / f"dino_{stream}" / "backbone.pt") for stream in ("face", "hand_l"))
    shutil.rmtree(finished.work_dir / "dino_hand_l")
    change_config(finished, {"face": face, "hand_l": hand_l, "hand_r": "timm::vit_tiny"})
    release(finished, tmp_path / "release", project)
    text = (tmp_path / "release/README.md").read_text(encoding="utf-8")
    (command,) = re.findall("(?m)^signstreams translate .*$", text)
    expected = "signstreams translate video.mp4 --checkpoint . --hand-left-backbone file::PATH --model-download"
    assert command == expected
    assert 'ss.load_translator(".", hand_left_backbone="file::PATH", download=True)' in text
    assert f"backbone of hand_l is not in this folder (SHA-256 {hand_l})" in text
    change_config(finished, {})  # of keypoints alone
    release(finished, tmp_path / "release", project)
    text = (tmp_path / "release/README.md").read_text(encoding="utf-8")
    assert "--checkpoint .\n" in text and "file::" not in text


def test_what_does_not_belong_to_the_model_is_not_released(finished: Any, project: Path, tmp_path: Path) -> None:
    (finished.work_dir / "dino_face" / "backbone.pt").write_text("pretrained anew")
    (finished.work_dir / "multistream_v9" / "best.pt").write_text("trained anew")
    with pytest.raises(UserError) as error:
        release(finished, tmp_path / "release", project)
    scores, face = error.value.problems
    assert re.search(r"scores\.json: is of another model, .*; evaluate it \(signstreams evaluate\)", scores)
    assert re.search(r"dino_face/backbone\.pt: its SHA-256 is \w{12}, but .*best\.pt was trained with \w{12}; ", face)
    (finished.work_dir / "multistream_v9" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json: does not name the backbones of best\.pt"):
        release(finished, tmp_path / "release", project)
    assert not (tmp_path / "release").exists()


def test_a_report_on_another_backbone_is_not_released(finished: Any, project: Path, tmp_path: Path) -> None:
    """Also without a translation model, and where weights are alone in the folder."""
    shutil.rmtree(finished.work_dir / "multistream_v9")
    (finished.work_dir / "dino_hand_l" / "backbone.pt").write_text("pretrained anew")
    (finished.work_dir / "dino_hand_l" / "params.json").unlink()
    with pytest.raises(UserError, match=r"dino_hand_l/judge\.json: is of another backbone, .*evaluate-backbone"):
        release(finished, tmp_path / "release", project)
    assert not (tmp_path / "release").exists()


def test_a_report_of_before_is_left_out(
    finished: Any, project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_judge(finished, "hand_l", as_of_before)
    files = release(finished, tmp_path / "release", project)
    assert not [name for name in files if name.startswith("backbones/hand_l/judge")]
    assert "backbones/hand_r/judge.json" in files and "backbones/hand_r/judge.png" in files
    text = (tmp_path / "release/README.md").read_text(encoding="utf-8")
    assert "| hand_l | vit_tiny | 3,162 | 2,000 | 4.00 | 5.54 | 200.00 | – | – |" in text
    assert card_data(tmp_path / "release/backbones/hand_l/README.md").eval_results is None
    assert "dino_hand_l/judge.json: left out, as it does not say which backbone.pt it is of; run signstr" in caplog.text


def test_of_two_backbones_judged_at_once_that_of_the_run_is_on_the_card(
    finished: Any, project: Path, tmp_path: Path
) -> None:
    change_judge(finished, "hand_l", put_another_first)
    release(finished, tmp_path / "release", project)
    card = card_data(tmp_path / "release/backbones/hand_l/README.md")
    assert {result.metric_value for result in card.eval_results} == {0.92}
    assert "200.00 | 92 % | 88 % |" in (tmp_path / "release/README.md").read_text(encoding="utf-8")


def test_the_boundary_model_goes_along_with_the_model_that_it_belongs_to(
    finished: Any, project: Path, tmp_path: Path
) -> None:
    model, folder = finished.work_dir / "multistream_v9" / "best.pt", finished.work_dir / "boundaries"
    assert not [name for name in release(finished, tmp_path / "release", project) if "boundar" in name]
    assert "boundary" not in (tmp_path / "release/README.md").read_text()
    folder.mkdir()
    (folder / "boundary.pt").write_text("boundaries")
    (folder / "boundaries.json").write_text(json.dumps({"checkpoint_sha256": sha256_file(model)}))
    files = release(finished, tmp_path / "release", project)
    assert {"translation/boundary.pt", "translation/boundaries.json"} <= set(files)
    assert "curves, boundary model |" in (tmp_path / "release/README.md").read_text()
    for report in ('{"checkpoint_sha256": "of another"}', "[]"):
        (folder / "boundaries.json").write_text(report)
        with pytest.raises(UserError, match=r"boundary\.pt: was trained beside another model.*snakemake boundaries"):
            release(finished, tmp_path / "release", project)


def test_a_sequence_pretraining_goes_along(with_sequence: Any, project: Path, tmp_path: Path) -> None:
    files = release(with_sequence, tmp_path / "release", project)
    assert {f"sequence/{name}" for name in ("best.pt", "clusters.npz", "config.json", "metrics.jsonl")} <= set(files)
    text = (tmp_path / "release/README.md").read_text(encoding="utf-8")
    assert "hidden steps predicted 44 % (nearest seen step 30 %, most frequent cluster 12 %) on val. The tr" in text
    assert "![sequence](sequence/curves.png)" in text and "| `sequence/` |" in text


def card_data(path: Path) -> Any:
    """Front matter, as the hub's own library reads it."""
    hub = pytest.importorskip("huggingface_hub")  # comes with transformers
    return hub.ModelCard.load(path).data


def test_the_cards_tell_a_hub_what_was_measured(finished: Any, project: Path, tmp_path: Path) -> None:
    release(finished, tmp_path / "release", project)
    data = card_data(tmp_path / "release/README.md")
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"bleu": 5.9, "chrf": 23.7, "rouge": 20.0, "wer": 56.5}
    assert {(r.dataset_type, r.dataset_split) for r in data.eval_results} == {("año", "test")}
    assert data.metrics == list(found) and "sign-language-translation" in data.tags
    hand = card_data(tmp_path / "release/backbones/hand_l/README.md")
    assert [(r.dataset_split, r.metric_value) for r in hand.eval_results] == [
        ("other videos", 0.92),
        ("unseen signers", 0.92),
    ]
    assert hand.eval_results[0].metric_name == "20-NN accuracy"
    judged = {(result.dataset_type, result.dataset_name) for result in hand.eval_results}
    assert judged == {("hands.zip", "hands.zip: hand_l")}  # the judge's, not the corpus that was pretrained on
    assert card_data(tmp_path / "release/backbones/face/README.md").eval_results is None
    change_config(finished, {}, decoder={"target_language": "es_XX"})
    release(finished, tmp_path / "release", project)
    assert card_data(tmp_path / "release/README.md").language == ["es"]


def test_licences_and_consent_are_those_that_were_given_and_none_otherwise(
    finished: Any, project: Path, tmp_path: Path
) -> None:
    (finished.work_dir / "dino_hand_r" / "params.json").unlink()  # weights of another's, whose card is theirs
    cards = [tmp_path / "release" / place / "README.md" for place in ("", "backbones/face")]
    release(finished, tmp_path / "release", project)
    for card in cards:
        assert (card_data(card).license, card_data(card).license_name) == ("other", "none-given")
        assert "Licence of the weights: **none was given.**" in card.read_text(encoding="utf-8")
    given = {"weights_license": "CC BY-NC 4.0", "footage_license": "Ours.", "consent_note": "Signed forms, 2026"}
    release(finished, tmp_path / "release", project, **given, languages=["aed", "es"], datasets=["own/lsa"])
    for card in cards:
        data, text = card_data(card), card.read_text(encoding="utf-8")
        assert (data.license, data.language, data.datasets) == ("cc-by-nc-4.0", ["aed", "es"], ["own/lsa"])
        assert "agreed to: Signed forms, 2026.\n" in text and "none was given" not in text
    assert card_data(cards[0]).eval_results[0].dataset_type == "own/lsa"
    assert (tmp_path / "release/backbones/hand_r/README.md").read_text() == "card"


def test_scores_of_before_do_not_name_their_model(finished: Any, project: Path, tmp_path: Path) -> None:
    path = finished.work_dir / "multistream_v9" / "scores.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "checkpoint_sha256"}))
    assert "translation/scores.json" in release(finished, tmp_path / "release", project)


def test_metrics_are_thinned_but_for_probes(finished: Any, project: Path, tmp_path: Path) -> None:
    release(finished, tmp_path / "release", project, metrics_lines=20)
    lines = (tmp_path / "release/backbones/face/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted({*range(10, 2001, 100), 500, 1000, 1500, 2000})


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_checksums_hold(finished: Any, project: Path, tmp_path: Path) -> None:
    files = release(finished, tmp_path / "release", project)
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path / "release", capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(files) - 1
    found = {path.relative_to(tmp_path / "release").as_posix() for path in (tmp_path / "release").rglob("*.*")}
    assert found <= set(files)


def test_an_older_release_is_replaced_and_anything_else_is_not(finished: Any, project: Path, tmp_path: Path) -> None:
    release(finished, tmp_path / "release", project)
    (tmp_path / "release" / "stale.txt").write_text("of before")
    release(finished, tmp_path / "release", project)
    assert not (tmp_path / "release" / "stale.txt").exists()
    (tmp_path / "release" / SUMS).unlink()  # as Snakemake does, whose output it is, before it runs the rule again
    assert SUMS in release(finished, tmp_path / "release", project)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a release"):
        release(finished, mine, project)
    assert (mine / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "logs", "mine", "release", "work"]


def test_nothing_to_release_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["release", "--work-dir", str(tmp_path), "--output", str(tmp_path / "r")])
    stderr = capsys.readouterr().err
    assert "error: " in stderr and "dino_<stream>/backbone.pt: found none" in stderr and stderr.count("\n") == 1
