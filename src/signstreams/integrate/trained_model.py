"""Reading ``best.pt``: a trained model with backbones, tokenizer and glosses, or initial weights for another run."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import PretrainedConfig

from signstreams.backbones.archs import BackboneSpec, parse_spec
from signstreams.backbones.weights import Backbone
from signstreams.config.section import Section
from signstreams.corpus.findings import few
from signstreams.corpus.gloss import GlossVocabulary
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.layout import PRETRAINING_FILES, RunLayout
from signstreams.integrate.decoder import decoder_config_from_json
from signstreams.integrate.model import build_model
from signstreams.integrate.model_files import trained_model_file
from signstreams.integrate.mska_settings import mska_checkpoint
from signstreams.integrate.results import TOKENIZER, beside
from signstreams.integrate.settings import IntegrateConfig, TrainedModelSection
from signstreams.integrate.stream_backbones import Backbones, load_backbones
from signstreams.integrate.text_model import TextModel
from signstreams.integrate.tokenizer import SpecialTokens, Tokenizer
from signstreams.integrate.vocabulary import TOKEN_ROWS
from signstreams.streams import BACKBONE_KEYS, BY_NAME

log = logging.getLogger(__name__)

FORMAT = "signstreams_multistream_v9"  # value of ``format`` in ``best.pt``
HANDS_ON_TOKENIZER = "hands_on_tokenizer"
"""Entry of a checkpoint of stage text, and of those that start from one: what starts from it keeps its tokenizer."""
SEQUENCE_FORMAT = "signstreams_sequence"  # the same of a sequence pretraining


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and what it needs."""

    path: Path  # its checkpoint
    config: IntegrateConfig  # config of its training, with the backbones where they are now
    model: TextModel  # the model in evaluation mode, on the CPU
    backbones: Backbones  # backbones of its streams
    tokenizer: Tokenizer  # tokenizer of its texts
    vocabulary: GlossVocabulary | None  # its glosses; None without
    head: str | None  # gloss head chosen on val
    about: dict[str, Any]  # what else the checkpoint holds: step, scores on val, extraction settings


def load_trained_model(given: TrainedModelSection, *, reads_video: bool = True) -> TrainedModel:
    """Load a checkpoint, its backbones, and its tokenizer from the same folder.

    The checkpoint may be named by the folder of a release, or of a run. A `UserError` says what is missing, damaged, or
    not what the model was trained with; or that it reads glosses, where one is wanted that ``reads_video``.
    """
    path = trained_model_file(given)
    try:
        content = checkpoint.load(path)
    except ValueError as error:
        raise UserError(f"{error}; name the best.pt of a run") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path}: is not a multistream v9 model, expected the best.pt of a run; name one with --checkpoint"
        )
    if "gloss_head" not in content:
        raise UserError(
            f"{path}: holds the state of a training, expected a model chosen on val; name the best.pt beside it with"
            " --checkpoint"
        )
    _check_content(path, content)
    config = _found_backbones(path, content["backbone_sha256"], _config(path, content, given), given)
    if reads_video and config.stage == "g2t":
        raise UserError(f"{path}: is of stage g2t, which reads glosses; name a model that was trained on video")
    if config.stage in ("vlp", "text"):
        raise UserError(
            f"{path}: is of stage {config.stage}, which translates nothing; train stage slt with train.init_checkpoint"
            f" {path}, and name its best.pt"
        )
    backbones = load_backbones(config)
    _check_backbones(path, content["backbone_sha256"], backbones)
    _check_mirrored(path, content.get("mirrored_streams", []), backbones)
    tokenizer = _tokenizer(path, content["token_roles"])
    names = content["glosses"]
    vocabulary = None if names is None else GlossVocabulary(tuple(names))
    model = _model(path, content, config, backbones, tokenizer)
    about = {key: value for key, value in content.items() if key not in ("model", "config", "glosses")}
    return TrainedModel(path, config, model.eval(), backbones, tokenizer, vocabulary, content["gloss_head"], about)


_KINDS: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "model": (dict,),
    "backbone_sha256": (dict,),
    "token_roles": (dict,),
    "glosses": (list, type(None)),
    "gloss_head": (str, type(None)),
    "decoder": (str, type(None)),
    "extraction": (dict,),
    "step": (int,),
    "num_train_clips": (int,),
}
"""Entries of a checkpoint that are read, and what they are."""


def _check_content(path: Path, content: dict[str, Any]) -> None:
    """A checkpoint of another version or from elsewhere may lack anything."""
    problems = [
        f"its {key} is {'absent' if key not in content else type(content[key]).__name__}"
        for key, kinds in _KINDS.items()
        if key not in content or not isinstance(content[key], kinds)
    ]
    rates = content.get("fps_range")
    if rates is not None and not (
        isinstance(rates, list) and len(rates) == 2 and all(isinstance(r, float) and 0 < r < 1e4 for r in rates)
    ):
        problems.append("its fps_range holds no two frame rates")
    for key in ("glosses", "backbone_sha256"):
        found = content.get(key)
        values = found.values() if isinstance(found, dict) else found or ()
        if not problems and not all(isinstance(value, str) for value in values):
            problems.append(f"its {key} holds other values than texts")
    if not problems:
        try:
            checkpoint.check_tensors(content["model"])
        except ValueError as error:
            if "finite" in str(error):
                raise UserError(
                    f"{path}: its weights are not finite, the training diverged; train again with a lower optim.lr, or"
                    " with --optim-precision fp32"
                ) from None
            problems.append(str(error))
    if problems:
        raise UserError(f"{path}: {', '.join(problems)}; it is damaged or of another version: train the model again")


def _tokenizer(path: Path, roles: dict[str, Any]) -> Tokenizer:
    try:
        special = SpecialTokens.from_dict(roles)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its token_roles are damaged ({error}); train the model again") from None
    tokenizer = Tokenizer.load(beside(path, TOKENIZER), special)
    if (last := max(special.ids)) >= len(tokenizer):
        raise UserError(
            f"{path}: its token_roles name token {last}, but {beside(path, TOKENIZER)} has {len(tokenizer)}: they do"
            " not belong together; put the tokenizer of that run there"
        )
    return tokenizer


def _model(
    path: Path, content: dict[str, Any], config: IntegrateConfig, backbones: Backbones, tokenizer: Tokenizer
) -> TextModel:
    """The model with the weights of the checkpoint.

    It is built without memory first: the sizes in a damaged checkpoint may be any.
    """
    try:
        decoder: PretrainedConfig | None = None
        if config.mska.learns_text:
            decoder = decoder_config_from_json(content["decoder"])
    except Exception as error:  # of an odd description transformers raises many kinds
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: its decoder is damaged ({reason}); train the model again") from None
    names, state = content["glosses"], content["model"]
    num_glosses = None if names is None else len(names)
    try:
        _check_layers(config.model_dump(), len(state), "config")
        _check_layers({} if decoder is None else decoder.to_dict(), len(state), "decoder")
        with torch.device("meta"):
            empty = build_model(config, backbones, tokenizer, num_glosses=num_glosses, decoder_config=decoder)
        state = empty.own_weights(state)
        if differences := checkpoint.differences(state, empty.state_dict()):
            raise ValueError(few(differences))
    except UserError:
        raise
    except Exception as error:  # whatever its sizes lead to
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: weights, config and tokenizer do not belong together ({reason}); train the model again"
        ) from None
    model = build_model(config, backbones, tokenizer, num_glosses=num_glosses, decoder_config=decoder)
    model.load_state_dict(state)
    return model


def _check_layers(tree: Mapping[str, Any], num_tensors: int, place: str) -> None:
    """Each layer has tensors of its own: a million of them take minutes to build even without memory.

    Raises:
        ValueError: There are more layers than tensors.
    """
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _check_layers(value, num_tensors, f"{place}.{key}")
        elif "layers" in str(key) and isinstance(value, int) and value > num_tensors:
            raise ValueError(f"{place}.{key} is {value}, but there are only {num_tensors} tensors")


def _found_backbones(
    path: Path, expected: Mapping[str, str], config: IntegrateConfig, given: TrainedModelSection
) -> IntegrateConfig:
    """The config with backbones that were moved along with the model: in a release, or in a work directory.

    What is at the place of the training counts only if it is that backbone: a release may be read where another run is.

    Raises:
        UserError: Others are no longer where they were in training.
    """
    base = path.parent.parent
    found, problems = {}, []
    for stream, text in config.model.backbones.items():
        spec, key = parse_spec(text), BACKBONE_KEYS[stream]
        if spec.kind != "file" or getattr(given, key) is not None:
            continue
        trained_with = Path(spec.location)
        places = (base / "backbones" / stream / PRETRAINING_FILES["backbone"], RunLayout(base).backbone(stream))
        moved = [place for place in places if place.is_file() and place.resolve() != trained_with.resolve()]
        if trained_with.is_file() and not (moved and sha256_file(trained_with) != expected.get(stream)):
            continue
        for place in moved:
            if sha256_file(place) == expected.get(stream):
                found[key] = str(BackboneSpec("file", str(place), spec.arch, spec.num_heads))
                log.info("%s: %s is taken", key, place)
                break
        else:
            if trained_with.is_file():  # of another: `_check_backbones` says so
                continue
            problems.append(
                f"{key}: {spec.location}: no such file, expected the backbone that {path} was trained with (SHA-256"
                f" {expected.get(stream, '')[:12]}); name it with {BY_NAME[stream].backbone_flag} file::PATH"
            )
    if problems:
        raise UserError(problems)
    return config.model_copy(update={"model": config.model.model_copy(update=found)}) if found else config


def _config(path: Path, content: dict[str, Any], given: TrainedModelSection) -> IntegrateConfig:
    """The config of its training, with the backbones where they are now."""
    tree = content["config"]
    tree.pop("tracking", None)  # of the training; old ones may name a tracker that no longer exists
    if not isinstance(tree.get("model"), dict):
        raise UserError(f"{path}: its config has no section model; it is damaged: train the model again")
    for key in BACKBONE_KEYS.values():
        spec = getattr(given, key)
        if spec is not None and tree["model"].get(key) is None:
            raise UserError(f"{key}: {path} was trained without this stream; leave --{key.replace('_', '-')} out")
        if spec is not None:
            tree["model"][key] = _with_heads(spec, tree["model"][key])
    if given.download and not any(str(tree["model"].get(key)).startswith("timm::") for key in BACKBONE_KEYS.values()):
        raise UserError(f"download has no effect: no backbone of {path} is a timm:: model; leave --model-download out")
    tree["model"]["download"] = given.download  # a permission given to the training is not one for now
    _say_layers(tree)
    try:
        return IntegrateConfig.model_validate(_completed(tree))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{path}: its config does not fit this version of signstreams ({place}: {problem['msg']}); train the model"
            " again"
        ) from None


def _say_layers(tree: dict[str, Any]) -> None:
    """Name MSKA's layers in the config of a model that was trained before they were named: it has fewer."""
    mska = tree.get("mska")
    if isinstance(mska, dict) and tree["model"].get("use_mska", True):
        mska.setdefault("layers", "reduced")


def _completed(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings of a training with what this version adds at its default: it did without, whatever a preset says."""
    for section, field in IntegrateConfig.model_fields.items():
        given = tree.get(section)
        if isinstance(field.default, Section) and isinstance(given, dict):
            later = {"use_encoder": False, "prune_vocabulary": False} if section == "decoder" else {}
            tree[section] = field.default.model_dump(mode="json") | later | given
    return tree


def _with_heads(spec: str, trained: Any) -> str:
    """The backbone as it is named now, with the number of heads that its name had in training."""
    now, then = parse_spec(spec), parse_spec(str(trained))
    if now.kind != "file" or now.num_heads is not None or then.num_heads is None:
        return spec
    return str(BackboneSpec("file", now.location, now.arch, then.num_heads))


def _check_backbones(path: Path, expected: dict[str, str], found: Backbones) -> None:
    """Features of other backbones would mean nothing to the model; its trained backbones are in its own weights."""
    if absent := [stream for stream in found.frozen if stream not in expected]:
        raise UserError(
            f"{path}: does not say which backbone of {absent[0]} it was trained with; train the model again"
        )
    problems = [
        f"{BACKBONE_KEYS[stream]}: its SHA-256 is {found.digests[stream][:12]}, but {path} was trained with"
        f" {expected[stream][:12]}; name that file with {BY_NAME[stream].backbone_flag}, or train again"
        for stream in found.frozen
        if found.digests[stream] != expected[stream]
    ]
    if problems:
        raise UserError(problems)


def _check_mirrored(path: Path, expected: Any, found: Backbones) -> None:
    """A backbone that was trained along has its weights in the model, but its file says which way its crops are."""
    if found.mirrored == expected:
        return
    problems = [
        f"{BACKBONE_KEYS[stream]}: sees {stream} crops {'mirrored' if stream in found.mirrored else 'as they are'}, but"
        f" {path} was trained otherwise; name the file that it was trained with with {BY_NAME[stream].backbone_flag}"
        for stream in found.nets
        if (stream in found.mirrored) != (isinstance(expected, list) and stream in expected)
    ]
    raise UserError(problems or f"{path}: its mirrored_streams are damaged; train the model again")


# -- Weights for another run

_DECODER = "decoder.net."
# tensors with a row per token, or per gloss
_TOKEN_ROWS = re.compile(rf"decoder\.net\.({TOKEN_ROWS})")
_GLOSS_ROWS = re.compile(r"mska\.heads\.[^.]+\.classify\.(weight|bias)|fusion\.glosses\.weight")


def handed_on_tokenizer(config: IntegrateConfig) -> Tokenizer | None:
    """The tokenizer of stage text where this run starts from it, or from what did; else None: it learns its own.

    Raises:
        UserError: That one has another ``decoder.vocab_size``, or its file is missing.
    """
    if not (config.mska.learns_text and config.decoder.uses_own_tokenizer):
        return None
    for path in config.train.init_checkpoint:
        if mska_checkpoint(path) is not None:
            continue
        try:
            content = checkpoint.load(path)
        except (OSError, ValueError):
            continue  # `load_initial_weights` says so
        if not isinstance(content, dict) or not content.get(HANDS_ON_TOKENIZER):
            continue
        theirs = content["config"]["decoder"]["vocab_size"]
        if theirs != config.decoder.vocab_size:
            raise UserError(
                f"decoder.vocab_size: is {config.decoder.vocab_size:,}, but the tokenizer of {path} is kept, which has"
                f" {theirs:,}; set it to that"
            )
        return _tokenizer(path, content["token_roles"])
    return None


def load_initial_weights(
    model: TextModel, path: Path, tokenizer: Tokenizer, vocabulary: GlossVocabulary | None
) -> set[str]:
    """Load the weights of another run's ``best.pt`` that fit by name and shape; the log lists its others.

    Returns the names of those that were loaded.

    Of a run that learned glosses alone that is MSKA: the rest was never trained. Where that run, whose tokenizer is
    beside its checkpoint, had other tokens or glosses than this one, their rows are matched by token and name, not by
    number.

    Raises:
        UserError: Not a checkpoint of ours, its tokenizer is missing, or nothing fits.
    """
    try:
        content = checkpoint.load(path)
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise ValueError("holds no weights of a model")
        state = content["model"]
        checkpoint.check_tensors(state)
        if _learned_glosses_alone(content):
            state = {name: tensor for name, tensor in state.items() if name.startswith("mska.")}
        found = {name: tensor.shape for name, tensor in state.items()}
    except (OSError, ValueError) as error:
        raise UserError(
            f"train.init_checkpoint: {path}: is not a checkpoint of a multistream run ({error}); name a best.pt"
        ) from None
    own = model.state_dict()
    mirrored = content.get("mirrored_streams")
    for stream, net in model.backbones.items():
        assert isinstance(net, Backbone)
        is_among = any(name.startswith(f"backbones.{stream}.") for name in found)
        was_mirrored = isinstance(mirrored, list) and stream in mirrored
        if is_among and was_mirrored != (stream in net.mirrored_streams):
            raise UserError(
                f"train.init_checkpoint: {path}: its backbone of {stream} saw crops"
                f" {'mirrored' if was_mirrored else 'as they are'}, expected as {BACKBONE_KEYS[stream]} sees them; name"
                " that of its training there"
            )
    tokens, glosses = None, None
    if any(_TOKEN_ROWS.fullmatch(name) for name in found):
        file = beside(path, TOKENIZER)
        if not file.is_file():
            raise UserError(
                f"train.init_checkpoint: {path}: found no {file}, expected the tokenizer of that run, which says what"
                " its tokens are; copy it there"
            )
        tokens = common_rows("tokens", tokenizer.ids, Tokenizer.load(file).ids)
    if vocabulary is not None and any(_GLOSS_ROWS.fullmatch(name) for name in found):
        theirs = {str(name): number for number, name in enumerate(content.get("glosses") or ())}
        glosses = common_rows("glosses", vocabulary.ids, theirs)
    fitting = {}
    for name, tensor in own.items():
        rows = tokens if _TOKEN_ROWS.fullmatch(name) else glosses if _GLOSS_ROWS.fullmatch(name) else None
        axis = int(name.endswith("final_logits_bias"))  # (1, tokens)
        taken = None if name not in found else fit_rows(tensor, state[name], rows, axis)
        if taken is not None:
            fitting[name] = taken
    if not fitting:
        raise UserError(
            f"train.init_checkpoint: {path}: none of its {len(found)} tensors fits this model, expected equal names and"
            " sizes; use the config of that run"
        )
    _keep_tied(model, fitting)
    model.load_state_dict(fitting, strict=False)
    log.info("%s: %d of %d tensors loaded", path, len(fitting), len(own))
    norms = {name for name in own if name.startswith("mska.") and ".embed_norm." in name}
    if norms and any(name.startswith("mska.encoders.") for name in found) and not norms & found.keys():
        log.warning("its MSKA has fewer layers than this one; to keep them, set mska.layers to reduced")
    # those of stage vlp are for that stage alone
    if unused := [name for name in found if name not in fitting and not name.startswith("alignment.")]:
        log.warning("%d tensors of the checkpoint match nothing here: %s", len(unused), few(unused))
    return set(fitting)


def _learned_glosses_alone(content: Mapping[str, Any]) -> bool:
    config = content.get("config")
    mska = config.get("mska") if isinstance(config, Mapping) else None
    return isinstance(mska, Mapping) and mska.get("translation_weight") == 0


ENCODER = ("fusion.", "mska.")  # begins of the names that the weights of a sequence pretraining have
SHAPELESS = [  # settings of the encoder and its input that no shape of a weight tells
    ("data", "frame_stride"),
    ("data", "crop_px"),
    ("model", "num_heads"),
    ("model", "backbone_layers"),
    ("mska", "root_relative_hands"),
]


def load_sequence_weights(model: TextModel, path: Path, backbones: Backbones, config: IntegrateConfig) -> None:
    """Load projections, fusion encoder and MSKA's encoders of a sequence pretraining's ``best.pt``: all or none.

    Raises:
        UserError: Not a sequence pretraining, or one of another encoder, other backbones or another input.
    """
    place = f"train.sequence_checkpoint: {path}"
    try:
        content = checkpoint.load(path)
        if not isinstance(content, dict) or content.get("format") != SEQUENCE_FORMAT:
            raise ValueError(f"{path}: is not a sequence pretraining")
        begins = ENCODER if model.learns_text else "mska."
        state = {name: tensor for name, tensor in content["model"].items() if str(name).startswith(begins)}
        checkpoint.check_tensors(state)
        digests = dict(content["backbone_sha256"])
        theirs = {(section, name): content["config"][section][name] for section, name in SHAPELESS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{place}: cannot be read as one ({error}); name the best.pt of a run of signstreams sequence"
        ) from None
    for (section, name), value in theirs.items():
        is_used = config.model.use_mska or section != "mska"
        if is_used and (expected := getattr(getattr(config, section), name)) != value:
            raise UserError(
                f"{place}: {section}.{name} was {value}, expected {expected}; pretrain it again with that, or leave it"
                " out"
            )
    if other := [stream for stream, digest in backbones.digests.items() if digests.get(stream, digest) != digest]:
        raise UserError(
            f"{place}: saw features of another {other[0]} backbone (SHA-256 {digests[other[0]][:12]}), expected"
            f" {backbones.digests[other[0]][:12]}; pretrain it again on this one, or leave it out"
        )
    own = model.state_dict()
    # MSKA's heads are of glosses, and new here
    wanted = {name: own[name] for name in own if name.startswith(ENCODER) and not name.startswith("mska.heads.")}
    if differences := checkpoint.differences(state, wanted):
        raise UserError(
            f"{place}: its encoder is another one ({few(differences)}), expected that of the sections model and mska"
            " here; pretrain it again with these, or leave it out"
        )
    model.load_state_dict(state, strict=False)
    text = "%s: %d tensors of the encoder loaded (%s parameters); %d tensors of heads, map and decoder are trained from"
    num_parameters = sum(tensor.numel() for tensor in state.values())
    log.info(f"{text} scratch", path, len(state), f"{num_parameters:,}", len(own) - len(state))


def common_rows(kind: str, ours: dict[str, int], theirs: dict[str, int]) -> list[tuple[int, int]] | None:
    """Rows, here and in the checkpoint, of what both have; None where all are the same."""
    if ours == theirs:
        return None
    rows = [(number, theirs[name]) for name, number in ours.items() if name in theirs]
    text = "%s: the checkpoint has other ones: %d of %d are loaded, the rest are trained from scratch"
    log.warning(text, kind, len(rows), len(ours))
    return rows


def fit_rows(own: Tensor, theirs: Tensor, rows: list[tuple[int, int]] | None, axis: int) -> Tensor | None:
    """The tensor to load: that of the checkpoint, or our own with these rows of it; None where it does not fit."""
    if rows is None:
        return theirs if theirs.shape == own.shape else None
    if theirs.movedim(axis, 0).shape[1:] != own.movedim(axis, 0).shape[1:]:
        return None
    to, of = torch.tensor(rows, dtype=torch.long).view(-1, 2).unbind(dim=1)
    return own.cpu().index_copy(axis, to, theirs.index_select(axis, of).to(own.dtype))


def _keep_tied(model: TextModel, fitting: dict[str, Tensor]) -> None:
    """Keep an output layer that is separate in the checkpoint from overwriting the embeddings it is tied to here."""
    output = f"{_DECODER}lm_head.weight"
    for name in model.decoder.names_tied_to_output_layer() if model.decoder is not None else ():
        embeddings = fitting.get(_DECODER + name)
        if embeddings is not None and output in fitting and not torch.equal(embeddings, fitting[output]):
            log.warning("the output layer of the checkpoint is not loaded: here it is tied to the token embeddings")
            fitting[output] = embeddings
