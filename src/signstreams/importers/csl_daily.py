"""CSL-Daily: glosses and characters in JSON made of its pickle, splits in ``split_1.txt``, frames in folders.

A pickle runs whatever program its author put into it: ours never reads one. Who trusts a copy turns it into JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from signstreams.corpus.clips import SPLIT_NAMES, Clip
from signstreams.corpus.findings import Rule
from signstreams.corpus.table import scan_table
from signstreams.errors import UserError
from signstreams.files import read_json
from signstreams.ids import shown
from signstreams.importers.draft import Draft, Taken
from signstreams.importers.media import folders_below
from signstreams.importers.settings import ImportConfig
from signstreams.importers.tables import what_is_there

LABELS = "csl2020ct_v2"  # name of the file of labels, without ending
SPLITS_FILE = "split_1.txt"
CONVERT = (
    "python -c \"import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], 'rb'))['info'], open(sys.argv[2],"
    " 'w'), default=list)\""
)
ENTRY = Rule("csl_daily.entry", "warning", "an object with name, label_gloss and label_char")


def read_csl_daily(config: ImportConfig) -> Draft:
    """CSL-Daily: one sentence for each folder of frames; the text is its characters, between blanks."""
    labels = _labels(config)
    splits_path = _one(config, SPLITS_FILE)
    draft = Draft("CSL-Daily", "zh_CN", frames_fps=config.fps or 30.0)
    name = splits_path.relative_to(config.source).as_posix()
    table = scan_table(splits_path, ("name", "split"), name, holds="names and splits")
    if not {"name", "split"} <= set(table.columns):
        raise UserError(f"{splits_path}: the columns {', '.join(table.columns)}, expected name|split")
    draft.issues += table.issues
    split_of = {texts["name"].strip(): texts["split"].strip().lower() for _, texts in table.rows}
    labels_name = labels.relative_to(config.source).as_posix()
    for number, entry in enumerate(_entries(labels), 1):
        try:
            clip_id, glosses, characters = entry["name"], _texts(entry["label_gloss"]), _texts(entry["label_char"])
            assert isinstance(clip_id, str)
        except (KeyError, TypeError, AssertionError):
            found = f"the entry {shown(json.dumps(entry)[:60])}"
            draft.issues.append(ENTRY.breach(labels_name, found, "fetch the file again; it is left out", row=number))
            continue
        clip = Clip(
            clip_id=clip_id,
            video_id=clip_id,
            text=" ".join(characters),
            signer=next((part for part in clip_id.split("_") if part[:1] == "P" and part[1:].isdecimal()), None),
            split=SPLIT_NAMES.get(split_of.get(clip_id, "")),
        )
        draft.taken.append(Taken(clip, labels_name, number, glosses))
    draft.folders = folders_below(config.videos or [config.source])
    draft.notes += [
        "the text is the characters (label_char) with blanks between them, so that BLEU counts characters, as is usual",
        "signers from the names (S000000_P0000_T00); 30 pictures per second unless --fps says otherwise; dev is val",
    ]
    return draft


def _labels(config: ImportConfig) -> Path:
    """The labels as JSON.

    Raises:
        UserError: There is none, or the pickle alone.
    """
    found = sorted(config.source.rglob(f"{LABELS}.json"))
    if found:
        return found[0]
    pickles = sorted(config.source.rglob(f"{LABELS}.pkl"))
    if pickles:
        target = pickles[0].with_suffix(".json")
        raise UserError(
            f"{pickles[0]}: is a pickle, which can run any program when it is read and is never read here, expected"
            f" {target.name}; if you trust your copy: {CONVERT} {pickles[0]} {target}"
        )
    raise UserError(
        f"{config.source}: no {LABELS}.json (made of {LABELS}.pkl, see docs/corpora.md) in it or below,"
        f" {what_is_there(config)}; name the folder that CSL-Daily was unpacked to"
    )


def _one(config: ImportConfig, name: str) -> Path:
    found = sorted(config.source.rglob(name))
    if not found:
        raise UserError(f"{config.source}: no {name} in it or below, {what_is_there(config)}; fetch it too")
    return found[0]


def _entries(path: Path) -> list[Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}), expected a list of sentences; convert it again") from None
    if isinstance(content, dict):  # the whole pickle was converted
        content = content.get("info")
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of sentences, or an object with one as 'info'; convert it again")
    return content


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError
    return tuple(item.strip() for item in value if item.strip())
