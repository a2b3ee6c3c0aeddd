"""The authors' checkpoints: equal results with their weights, every tensor accounted for, one line where one is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from signstreams.corpus.gloss import GlossVocabulary
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.integrate.decoder import named_tokenizer
from signstreams.integrate.model import MultistreamModel, build_model
from signstreams.integrate.mska_checkpoint import digest_of_authors, load_mska_checkpoint, name_there
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import DecodingConfig, EvaluateSltConfig, IntegrateConfig, MskaConfig
from signstreams.integrate.stream_backbones import Backbones
from signstreams.integrate.trained_model import load_trained_model

from .authors_mska import JOINTS, State, is_table, network, num_parameters, recognise, saved
from .language_models import WIDTH, save_mbart
from .models import model_of

Build = Callable[..., IntegrateConfig]
# widths that change and stay, so that blocks are projected for their width, for their stride, and not at all
SIZES = {"channels": [8, 8, 12, 12], "num_heads": 2, "head_dim": 16, "head_ff_dim": 24}
AUTHORS = {**SIZES, "norm": "batch", "root_relative_hands": False}
CONFIG = MskaConfig.model_validate(AUTHORS)
THERE = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "agua": 4, "perro": 5, "niño": 6}
HERE = GlossVocabulary(("<blank>", "AGUA", "CASA", "NIÑO"))


def save(folder: Path, content: object, names: object = THERE) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "best.pth")
    if names is not None:
        (folder / "gloss2ids.json").write_text(json.dumps(names), encoding="utf-8")
    return folder / "best.pth"


def built(tiny_config: Build, num_glosses: int | None = len(HERE), **mska: object) -> MultistreamModel:
    return model_of(tiny_config(mska={**AUTHORS, **mska}), num_glosses=num_glosses)


def points(batch: int, frames: int) -> torch.Tensor:
    drawn = torch.rand(batch, frames, 79, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return drawn * torch.tensor([2.0, 2.0, 1.0]) - torch.tensor([1.0, 1.0, 0.0])


@pytest.mark.parametrize("frames", [12, 9, 4])
def test_with_their_weights_every_head_says_what_the_authors_does(
    frames: int, tiny_config: Build, tmp_path: Path
) -> None:
    theirs = {name: t.float().double() if t.is_floating_point() else t for name, t in network(CONFIG, 7).items()}
    vocabulary = GlossVocabulary(("<blank>", "</s>", "<pad>", "<unk>", "agua", "niño", "perro"))
    model = built(tiny_config, len(vocabulary))
    load_mska_checkpoint(model, save(tmp_path / "a", saved(theirs)), vocabulary)
    mska = model.mska.double().eval()
    down = points(2, frames) * torch.tensor([1.0, -1.0, 1.0])  # y points down here
    _, logits, _ = mska(down, torch.tensor([frames, frames]))
    order = [THERE.get(name, 0) for name in vocabulary.names]
    expected = recognise(theirs, CONFIG, points(2, frames))
    assert logits.keys() == expected.keys()
    for head, scores in expected.items():
        assert scores.abs().max() > 0.1
        torch.testing.assert_close(logits[head], scores[..., order], rtol=1e-10, atol=1e-10)


def test_the_papers_network_has_the_same_tensors_as_the_authors(tiny_config: Build) -> None:
    config = MskaConfig(norm="batch")
    theirs = network(config, 5, frames=8)
    counts = {stream: num_parameters(theirs, stream) for stream in JOINTS}
    assert counts == {"left": 3_820_576, "right": 3_820_576, "face": 3_818_032, "body": 4_085_152}
    model = model_of(tiny_config(mska={**config.model_dump(), "root_relative_hands": False}))
    assert {name_there(name) for name in model.mska.state_dict()} == {name for name in theirs if not is_table(name)}


def test_every_tensor_is_loaded_or_left_out_with_a_reason(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    theirs = network(CONFIG, len(THERE))
    others = {
        "translation_network.model.model.shared.weight": torch.ones(4, 2),
        "vl_mapper.mapping.0.weight": torch.ones(2, 2),
    }
    model = built(tiny_config)
    first = {name: t.clone() for name, t in model.state_dict().items()}
    load_mska_checkpoint(model, save(tmp_path / "a", saved(theirs, **others)), HERE)
    after = model.state_dict()
    changed = {name for name in first if not torch.equal(first[name], after[name])}
    assert changed == {name for name in first if name.startswith("mska.")}  # also each count of batches
    tables = sum(map(is_table, theirs))
    assert f"{len(changed)} of {len(changed)} tensors of MSKA loaded from {len(theirs)} there" in caplog.text
    assert tables == 2 * 4 * len(CONFIG.channels) + 4
    assert "left out: positions and zeros, which are computed here (16 atts, 20 pe)" in caplog.text
    assert (
        "left out: translation_network (1 tensors)" in caplog.text
        and "left out: vl_mapper (1 tensors), which" in caplog.text
    )
    assert after["mska.encoders.face.blocks.2.time_norm.num_batches_tracked"] == 88_700


def test_the_map_to_a_language_model_of_the_same_width_is_loaded(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = save_mbart(tmp_path / "tiny mbart")
    config = tiny_config(
        model={"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": ..., "use_pose": False}
        | {
            name: value
            for name, value in IntegrateConfig().model
            if name in ("projection_dim", "d_model", "num_layers", "ff_dim")
        },
        mska={**AUTHORS, "gloss_fusion": "alone"},
        decoder={"model": str(folder), "target_language": "es_XX", "num_layers": 3, "ff_dim": 512, "vocab_size": 2000},
    )
    model = build_model(config, Backbones({}, {}, {}, {}), named_tokenizer(config.decoder), num_glosses=len(HERE))
    theirs = network(CONFIG, len(THERE))
    for width in (WIDTH, WIDTH + 1):
        caplog.clear()
        shapes = {"0.weight": (width, 16), "0.bias": (width,), "2.weight": (width, width), "2.bias": (width,)}
        mapper = {f"vl_mapper.mapping.{name}": torch.full(shape, 0.25) for name, shape in shapes.items()}
        load_mska_checkpoint(model, save(tmp_path / str(width), saved(theirs, **mapper)), HERE)
        assert all(bool((t == 0.25).all()) for t in model.mapper.state_dict().values())
        is_ours = width == WIDTH
        text = "the map to the language model is loaded (4 tensors)" if is_ours else "vl_mapper (4 tensors), of other"
        assert text in caplog.text


def test_rows_of_glosses_go_by_name_and_only_where_names_are_beside_the_file(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    theirs = network(CONFIG, len(THERE))
    for names in (THERE, None):
        caplog.clear()
        model = built(tiny_config)
        first = model.state_dict()["mska.heads.left.classify.bias"].clone()
        load_mska_checkpoint(model, save(tmp_path / str(names is None), saved(theirs), names), HERE)
        bias = theirs["left_visual_head.gloss_output_layer.bias"].float()
        after = model.state_dict()["mska.heads.left.classify.bias"]
        if names is None:
            assert torch.equal(after, first)
            assert "left out: the classifiers of glosses, since nothing beside" in caplog.text
        else:
            assert torch.equal(after, torch.stack([bias[0], bias[4], first[2], bias[6]]))
            assert "glosses: the checkpoint has other ones: 3 of 4 are loaded" in caplog.text


def test_where_no_glosses_are_learned_the_fuse_heads_features_are_loaded(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    theirs = network(CONFIG, len(THERE))
    model = built(tiny_config, None)
    load_mska_checkpoint(model, save(tmp_path / "a", saved(theirs), None), None)
    own = model.state_dict()["mska.heads.fuse.conv_in.weight"]
    assert torch.equal(own, theirs["fuse_visual_head.feedforward.pwff_layer.0.weight"].float())
    assert "tensors of heads and classifiers, since no glosses are learned here" in caplog.text
    assert "gloss2ids" not in caplog.text


def test_a_recognition_network_that_was_saved_by_itself_loads_too(tiny_config: Build, tmp_path: Path) -> None:
    theirs = network(CONFIG, len(THERE))
    models = [built(tiny_config) for _ in range(2)]
    for number, (model, content) in enumerate(zip(models, (saved(theirs), theirs), strict=True)):
        load_mska_checkpoint(model, save(tmp_path / str(number), content), HERE)
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


def without(state: State, name: str) -> State:
    return {key: tensor for key, tensor in state.items() if key != name}


BODY = "visual_backbone_keypoint.body_graph_layers.0."
FAULTS: dict[str, tuple[Callable[[State], object], str]] = {
    "a tensor less": (
        lambda s: saved(without(s, f"{BODY}downs1.0.bias")),
        r"does not fit .*: lacks .*downs1\.0\.bias; ex",
    ),
    "one more": (
        lambda s: saved({**s, f"{BODY}downt1.0.bias": torch.ones(8)}),
        r"also holds .*downt1\.0\.bias; expected",
    ),
    "another shape": (
        lambda s: saved({**s, f"{BODY}out_nett.0.weight": torch.ones(8, 8, 5, 1)}),
        r"out_nett\.0\.weight is \(8, 8, 5, 1\) instead of \(8, 8, 7, 1\); expected the recognition network",
    ),
    "an attention of its own": (
        lambda s: saved({**s, f"{BODY}atts": torch.ones(1, 2, 79, 79)}),
        r"body_graph_layers\.0\.atts has other values",
    ),
    "other positions": (
        lambda s: saved({**s, f"{BODY}pes.pe": s[f"{BODY}pes.pe"] + 1}),
        r"0\.pes\.pe has other values",
    ),
    "other steps": (lambda s: saved({**s, "fuse_visual_head.pe.pe": torch.ones(3)}), r"fuse.*pe\.pe has other values"),
    "not finite": (
        lambda s: saved({**s, f"{BODY}alphas": torch.full((1, 2, 1, 1), torch.nan)}),
        r"is not a checkpoint of",
    ),
    "another network": (lambda s: {"model": {"conv.weight": torch.ones(2)}}, r"holds conv\.weight, and nothing of"),
    "no weights": (lambda s: {"model": 3}, r"is not a checkpoint of MSKA \(holds no weights"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_one_line_and_nothing_is_loaded(fault: str, tiny_config: Build, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    path = save(tmp_path / "a", change(network(CONFIG, len(THERE))))
    model = built(tiny_config)
    first = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"^train\.init_checkpoint: .*best\.pth: .*{message}") as error:
        load_mska_checkpoint(model, path, HERE)
    assert "\n" not in str(error.value)
    assert all(torch.equal(first[name], t) for name, t in model.state_dict().items())


def test_of_other_sizes_the_settings_that_would_fit_are_named(tiny_config: Build, tmp_path: Path) -> None:
    larger = MskaConfig.model_validate({**AUTHORS, "channels": [8, 16], "num_heads": 3, "head_dim": 20})
    path = save(tmp_path / "a", saved(network(larger, len(THERE))))
    with pytest.raises(UserError) as error:
        load_mska_checkpoint(built(tiny_config), path, HERE)
    text = str(error.value)
    assert text.endswith("; set mska.channels=8,16 mska.num_heads=3 mska.head_dim=20, which its tensors have")
    assert " and " in text and " more; " in text and len(text) < 600  # the first mismatches, and how many more
    fitting = built(tiny_config, channels=[8, 16], num_heads=3, head_dim=20)
    load_mska_checkpoint(fitting, path, HERE)


@pytest.mark.parametrize("names", [[1], {"agua": "4"}, {**THERE, "casa": 7}, {"<s>": 0}, {}], ids=str)
def test_names_that_are_not_of_the_checkpoint_are_one_line(names: object, tiny_config: Build, tmp_path: Path) -> None:
    path = save(tmp_path / "a", saved(network(CONFIG, len(THERE))), names)
    with pytest.raises(UserError, match=r"gloss2ids\.json: does not name the 7 glosses of .*, expected .*; convert"):
        load_mska_checkpoint(built(tiny_config), path, HERE)
    path.with_name("gloss2ids.json").write_bytes(b"\x80\x04}")  # the pickle, renamed
    with pytest.raises(UserError, match=r"gloss2ids\.json: is not JSON"):
        load_mska_checkpoint(built(tiny_config), path, HERE)


def test_a_file_that_would_run_a_program_is_refused(tiny_config: Build, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Program:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (ran,)

    path = save(tmp_path / "a", {**saved(network(CONFIG, len(THERE))), "epoch": Program()})
    with pytest.raises(UserError, match="is not a checkpoint of MSKA"):
        load_mska_checkpoint(built(tiny_config), path, HERE)
    assert not ran.exists()


def test_the_names_of_glosses_are_part_of_what_a_run_starts_from(tmp_path: Path) -> None:
    path = save(tmp_path / "a", {"model": 1}, None)
    alone = digest_of_authors(path)
    path.with_name("gloss2ids.json").write_text("{}")
    assert digest_of_authors(path) not in (alone, sha256_file(path))


def test_a_run_starts_from_the_authors_weights_trains_and_is_evaluated(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    theirs = network(CONFIG, len(THERE))
    path = save(tmp_path / "a", saved(theirs), THERE)
    settings = {
        "model": {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": ...},
        "mska": AUTHORS,
        "optim": {"lr": 1e-9, "checkpoint_activations": True},
    }
    train = {"epochs": 1, "ema_decay": 0.5, "init_checkpoint": f"mska::{path}"}
    config = tiny_config(output_dir=tmp_path / "run", train=train, **settings)
    run(config)
    assert "tensors of MSKA loaded" in caplog.text
    trained = load_trained_model(EvaluateSltConfig(checkpoint=tmp_path / "run" / "best.pt"))
    name, there = "encoders.left.blocks.2.mix_residual.0.weight", "left_graph_layers.2.downs1.0.weight"
    own = trained.model.mska.state_dict()
    expected = theirs[f"visual_backbone_keypoint.{there}"].flatten(1).float()
    torch.testing.assert_close(own[name], expected, atol=1e-6, rtol=0)
    # statistics moved from theirs towards those of this corpus, once a step, and were averaged with the weights
    last = checkpoint.load(tmp_path / "run" / "last.pt")
    steps = last["state"]["step"]
    assert last["model"]["mska.encoders.left.embed_norm.num_batches_tracked"] == 88_700 + steps
    mean = "encoders.left.embed_norm.running_mean"
    assert torch.equal(own[mean], last["average"][f"average.mska.{mean}"])
    assert not torch.allclose(own[mean], last["model"][f"mska.{mean}"], atol=1e-4)
    scores = score(EvaluateSltConfig(checkpoint=tmp_path / "run" / "best.pt", decoding=DecodingConfig(num_beams=1)))
    assert scores["losses"]["ctc"] > 0
    with pytest.raises(UserError, match=r"train\.init is .* there, .* here"):  # another start is another experiment
        path.with_name("gloss2ids.json").unlink()
        run(config)
    path.unlink()
    with pytest.raises(
        UserError, match=r"init_checkpoint: mska::.*best\.pth: No such file.*, expected a checkpoint of M"
    ):
        run(config)
