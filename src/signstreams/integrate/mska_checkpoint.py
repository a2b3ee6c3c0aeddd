"""Checkpoints of MSKA's authors (sutwangyan/MSKA, e7d5610): the names of their tensors and of ours, and loading.

Theirs are named as in recognition.py (``DSTA``, ``STAttentionBlock``), Visualhead.py and utils.py (``MaskedNorm``,
``PositionwiseFeedForward``); train.py saves them as ``model``, those of the recognition network below
``recognition_network.``. Every tensor of a file is loaded, left out with a reason in the log, or an error.

Letters: S heads of a block, V joints, C channels, G glosses.
"""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstreams.corpus.findings import few
from signstreams.corpus.gloss import BLANK, GlossVocabulary
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.files import digest, read_json, sha256_file
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.mska import HEAD_STREAMS, HEADS, sinusoid
from signstreams.integrate.trained_model import common_rows, fit_rows

log = logging.getLogger(__name__)

GLOSS_NAMES = "gloss2ids.json"  # beside a checkpoint: gloss to its number there
CONVERT = (
    "python -c \"import json, pickle, sys; json.dump(dict(pickle.load(open(sys.argv[1], 'rb'))), open(sys.argv[2],"
    " 'w'))\" gloss2ids.pkl"
)
_NETWORK = "recognition_network."
_MAPPER = "vl_mapper.mapping."  # VLMapper of kind projection (vl_mapper.py), which a file of sign to text has
_KEYPOINTS = "visual_backbone_keypoint."
_BLOCK = {
    "attention.query": "in_nets",  # the first half of its rows
    "attention.key": "in_nets",  # the second
    "attention.alpha": "alphas",
    "attention.global_matrix": "attention0s",
    "mix": "out_nets",
    "feed": "ff_nets",
    "mix_residual": "downs1",
    "feed_residual": "downs2",
    "time": "out_nett.0",
    "time_norm": "out_nett.1",
    "time_residual": "downt2",
}
_HEAD = {
    "embed.0": "fc1",
    "embed.1": "bn1.norm",
    "norm": "feedforward.layer_norm",
    "conv_in": "feedforward.pwff_layer.0",
    "conv_out": "feedforward.pwff_layer.3",
    "out_norm": "layer_norm",
    "classify": "gloss_output_layer",
}
_FUSED = ("left", "face", "right", "body")  # order of the streams that their fuse head reads
_ADVICE = "expected the recognition network of sutwangyan/MSKA; name a best.pth of its authors, or of their train.py"


def digest_of_authors(path: Path) -> str:
    """Digest of what is read of a checkpoint: the file, and the names of its glosses where they are beside it."""
    names = path.with_name(GLOSS_NAMES)
    return digest([sha256_file(path), sha256_file(names) if names.is_file() else None])


def load_mska_checkpoint(model: MultistreamModel, path: Path, vocabulary: GlossVocabulary | None) -> set[str]:
    """Load the recognition network of a checkpoint into the model's MSKA, and its map from there to the language model
    where the model's is of the same sizes; all other parts keep their weights.

    Rows of glosses are matched by name, which only `GLOSS_NAMES` beside the checkpoint tells; without it they are left
    out. y points down here and up there, which the sign of its weights makes good. Returns the names of the
    tensors that were loaded.

    Raises:
        UserError: The file is none of the authors', or of other sizes than the config's.
    """
    assert model.mska is not None  # `check_norm` has seen to it
    found, mapper, foreign = _read(path)
    own = model.mska.state_dict()
    names = {name: name_there(name) for name in own}
    wanted = {names[name]: torch.empty(_shape_there(name, tensor), device="meta") for name, tensor in own.items()}
    tables, other_heads = _tables(found), _other_heads(found, model)
    for key, tensor in found.items():  # as many glosses as they have
        if "gloss_output_layer" in key and key in wanted and tensor.ndim == wanted[key].ndim:
            wanted[key] = torch.empty((len(tensor), *wanted[key].shape[1:]), device="meta")
    there = {key: tensor for key, tensor in found.items() if key not in tables and key not in other_heads}
    differences = [*checkpoint.differences(there, wanted), *_other_tables(tables)]
    if differences:
        raise _unfit(path, differences, _sizes(found), _sizes(wanted))
    classifiers = {name: tensor for name, tensor in own.items() if ".classify." in name}
    rows = _gloss_rows(path, vocabulary, len(there[names[next(iter(classifiers))]])) if classifiers else None
    taken: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if name not in classifiers:
            taken[name] = as_here(name, there[names[name]], tensor.shape)
        elif rows is not None:
            fitted = fit_rows(tensor, there[names[name]], rows, 0)
            assert fitted is not None  # all sizes but the number of glosses are those wanted
            taken[name] = fitted
    model.mska.load_state_dict(taken, strict=False)
    log.info("%s: %d of %d tensors of MSKA loaded from %d there", path, len(taken), len(own), len(found))
    has_mapper = _load_mapper(model, path, mapper)
    _say_what_is_left(path, tables, other_heads, foreign, has_glosses=rows is not None or not classifiers)
    return {f"mska.{name}" for name in taken} | ({f"mapper.{name}" for name in mapper} if has_mapper else set())


def _load_mapper(model: MultistreamModel, path: Path, mapper: dict[str, Tensor]) -> bool:
    """Take the two layers between fuse head and language model where ours are the same; otherwise say why not.

    Returns whether they were taken.
    """
    if not mapper:
        return False
    if model.mapper is None or model.fusion is not None:
        log.warning(
            "left out: vl_mapper (%d tensors), which leads from the fuse head alone to a whole language model; here"
            " mska.gloss_fusion is not alone",
            len(mapper),
        )
    elif differences := checkpoint.differences(mapper, model.mapper.state_dict()):
        log.warning("left out: vl_mapper (%d tensors), of other sizes: %s", len(mapper), few(differences, 3))
    else:
        model.mapper.load_state_dict(mapper)
        log.info("%s: the map to the language model is loaded (%d tensors)", path, len(mapper))
        return True
    return False


def name_there(name: str) -> str:
    """Name of a tensor of `Mska` in the authors' recognition network."""
    match name.split("."):
        case ["encoders", stream, "embed", key]:
            return f"{_KEYPOINTS}{stream}_input_map.0.{key}"
        case ["encoders", stream, "embed_norm", key]:
            return f"{_KEYPOINTS}{stream}_input_map.1.{key}"
        case ["encoders", stream, "blocks", number, *rest]:
            return f"{_KEYPOINTS}{stream}_graph_layers.{number}.{_renamed(rest, _BLOCK)}"
        case ["heads", head, *rest]:
            return f"{head}_visual_head.{_renamed(rest, _HEAD)}"
    raise AssertionError(f"{name} is no tensor of MSKA")


def as_here(name: str, theirs: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of theirs, of the right shape, as the one of this name and shape here."""
    if ".attention.query." in name:
        theirs = theirs[: len(theirs) // 2]
    elif ".attention.key." in name:
        theirs = theirs[len(theirs) // 2 :]
    elif name.endswith(".time.weight"):
        theirs = theirs.transpose(2, 3)  # (C, C, k, 1) to (C, C, 1, k)
    elif name == "heads.fuse.embed.0.weight":
        parts = dict(zip(_FUSED, theirs.chunk(len(_FUSED), dim=1), strict=True))
        theirs = torch.cat([parts[stream] for stream in HEAD_STREAMS["fuse"]], dim=1)
    theirs = theirs.reshape(shape)
    if name.endswith(".embed.weight"):  # of (x, y, confidence)
        theirs = theirs * theirs.new_tensor([1.0, -1.0, 1.0])
    return theirs


def _shape_there(name: str, tensor: Tensor) -> torch.Size:
    shape = tensor.shape
    if ".attention.query." in name or ".attention.key." in name:
        shape = torch.Size((2 * shape[0], *shape[1:]))
    if ".attention.alpha" in name or ".attention.global_matrix" in name:
        return torch.Size((1, *shape))
    if name.endswith(".time.weight"):
        return torch.Size((shape[0], shape[1], shape[3], shape[2]))
    if name.startswith("encoders.") and len(shape) == 2:  # a convolution over one point there
        return torch.Size((*shape, 1, 1))
    return shape


def _renamed(parts: list[str], table: Mapping[str, str]) -> str:
    for length in (2, 1):
        if (module := ".".join(parts[:length])) in table:
            return ".".join([table[module], *parts[length:]])
    raise AssertionError(f"{'.'.join(parts)} is no tensor of MSKA")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], Counter[str]]:
    """Tensors of the recognition network and of the map, by their names below them, and how many each other one has."""
    try:
        content: Any = checkpoint.load(path, with_placeholders=True)  # an optimiser's state may be beside them
        state = content.get("model", content) if isinstance(content, dict) else content
        if not isinstance(state, dict) or not state:
            raise ValueError("holds no weights of a model")
        checkpoint.check_tensors(state)
    except (OSError, ValueError) as error:
        raise UserError(f"train.init_checkpoint: {path}: is not a checkpoint of MSKA ({error}); {_ADVICE}") from None
    mapper = {name.removeprefix(_MAPPER): tensor for name, tensor in state.items() if name.startswith(_MAPPER)}
    found = {name.removeprefix(_NETWORK): tensor for name, tensor in state.items() if name.startswith(_NETWORK)}
    if not found:  # a recognition network that was saved by itself
        found = {name: tensor for name, tensor in state.items() if name.startswith((_KEYPOINTS, *_heads_there()))}
        others = [name for name in state if name not in found]
    else:
        others = [name for name in state if not name.startswith(_NETWORK)]
    foreign = Counter(name.partition(".")[0] for name in others if not name.startswith(_MAPPER))
    if not any(name.startswith(_KEYPOINTS) for name in found):
        named = few(list(state), 3)
        raise UserError(f"train.init_checkpoint: {path}: holds {named}, and nothing of {_KEYPOINTS[:-1]}; {_ADVICE}")
    return found, mapper, foreign


def _heads_there() -> tuple[str, ...]:
    return tuple(f"{head}_visual_head." for head in HEADS)


def _tables(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that are no weights: positions, and zeros to which the attention is added."""
    return {name: tensor for name, tensor in found.items() if name.endswith((".pe", ".atts"))}


def _other_tables(tables: Mapping[str, Tensor]) -> list[str]:
    """Those whose values are not the ones computed here: of a network that was changed."""
    problems = []
    for name, table in tables.items():
        if name.endswith(".atts"):
            is_ours = not bool(table.any())
        elif name.endswith(".pes.pe") and table.ndim == 4:  # (1, C, frames, V)
            ours = sinusoid(table.shape[3], table.shape[1]).T[None, :, None]
            is_ours = torch.allclose(table.float(), ours, atol=1e-3)
        else:  # (1, steps, C); sines of thousands differ by the machine
            ours = sinusoid(*table.shape[1:]) if table.ndim == 3 else table.new_full((), torch.nan)
            is_ours = torch.allclose(table.float(), ours, atol=1e-2)
        problems += [] if is_ours else [f"{name} has other values"]
    return problems


def _other_heads(found: Mapping[str, Tensor], model: MultistreamModel) -> list[str]:
    """Tensors of heads, and of classifiers, that the model lacks: without glosses it has the fuse head alone."""
    assert model.mska is not None
    left = [f"{head}_visual_head." for head in HEADS if head not in model.mska.heads]
    if "fuse" in model.mska.heads and model.mska.heads["fuse"].classify is None:
        left.append("fuse_visual_head.gloss_output_layer.")
    return [name for name in found if name.startswith(tuple(left))] if left else []


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Settings to their values, as far as tensors by their names there tell."""

    def side(name: str, axis: int = 0) -> int | None:
        tensor = tensors.get(name)
        return None if tensor is None or tensor.ndim <= axis else tensor.shape[axis]

    block, head = f"{_KEYPOINTS}body_graph_layers.", "fuse_visual_head."
    numbers = {
        int(n) for name in tensors if name.startswith(block) and (n := name[len(block) :].split(".")[0]).isdigit()
    }
    channels = [side(f"{block}{number}.out_nets.0.bias") for number in sorted(numbers)]
    values = {
        "mska.channels": ",".join(map(str, channels)) or None,
        "mska.num_heads": side(f"{block}0.alphas", 1),
        "mska.head_dim": side(f"{head}fc1.bias"),
        "mska.head_ff_dim": side(f"{head}feedforward.pwff_layer.0.bias"),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _unfit(path: Path, differences: list[str], there: dict[str, str], here: dict[str, str]) -> UserError:
    """What differs, and the settings with which the sizes would be theirs."""
    settings = [f"{name}={value}" for name, value in there.items() if here.get(name, value) != value]
    advice = f"set {' '.join(settings)}, which its tensors have" if settings else _ADVICE
    return UserError(f"train.init_checkpoint: {path}: does not fit this MSKA: {few(differences, 3)}; {advice}")


def _gloss_rows(path: Path, vocabulary: GlossVocabulary | None, count: int) -> list[tuple[int, int]] | None:
    """Rows of glosses, here and of ``count`` there, by name; None without names. Theirs may be lower-cased.

    Raises:
        UserError: The names do not belong to the checkpoint.
    """
    file = path.with_name(GLOSS_NAMES)
    assert vocabulary is not None  # without one there are no classifiers
    if not file.is_file():
        return None
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: is not JSON ({error}), expected glosses and their numbers; {CONVERT} {file}"
        ) from None
    numbers = list(content.values()) if isinstance(content, dict) else []
    if not numbers or not all(type(number) is int for number in numbers) or sorted(set(numbers)) != list(range(count)):
        raise UserError(
            f"{file}: does not name the {count} glosses of {path}, expected an object of gloss to number, 0 to"
            f" {count - 1}; convert the gloss2ids.pkl of that checkpoint: {CONVERT} {file}"
        )
    theirs = {unicodedata.normalize("NFC", name): number for name, number in content.items() if number}
    lowered = {name: theirs[name.lower()] for name in vocabulary.ids if name not in theirs and name.lower() in theirs}
    rows = common_rows("glosses", vocabulary.ids, {**theirs, **lowered, BLANK: 0})
    return [(number, number) for number in range(count)] if rows is None else rows


def _say_what_is_left(
    path: Path, tables: Iterable[str], other_heads: Iterable[str], foreign: Counter[str], *, has_glosses: bool
) -> None:
    kinds = Counter(name.rpartition(".")[2] for name in tables)
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    log.info("left out: positions and zeros, which are computed here (%s)", shown or "none")
    if other_heads := list(other_heads):
        log.info("left out: %d tensors of heads and classifiers, since no glosses are learned here", len(other_heads))
    if not has_glosses:
        log.warning(
            "left out: the classifiers of glosses, since nothing beside %s names them; for their rows convert the"
            " gloss2ids.pkl of that checkpoint: %s %s",
            *(path, CONVERT, path.with_name(GLOSS_NAMES)),
        )
    for network, count in sorted(foreign.items()):
        log.warning("left out: %s (%d tensors): only the recognition network and its map are taken", network, count)
    log.warning(
        "all else keeps its first weights. The authors' points were HRNet's, in the frame of the picture; here they"
        " are MediaPipe's, around the shoulders, 0 where missing: train before you judge"
    )
