"""What val and test share with train under another name: the same video, the same signer, the same text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding, Rule, Severity, few, few_ids
from signstreams.formats.layout import SPLITS
from signstreams.ids import shown

SAME_VIDEO = Rule("split.same_video", "error", "each video under one name")
SIGNER_SPELLING = Rule("split.signer_spelling", "warning", "one spelling of each signer's name over the splits")
REPEATED_TEXT = Rule("split.repeated_text", "info", "texts of val and test that train does not have")
LEAKAGE_RULES = (SAME_VIDEO, SIGNER_SPELLING, REPEATED_TEXT)

MANY_TEXTS_SHARE = 0.1
"""Share of the texts of val or test that train may have before that is a warning: PHOENIX-2014T's dev and test have a
twentieth, mostly forms of greeting; of a corpus of set sentences it is all of them, and scores say how well these are
told apart."""


def check_leakage(
    splits: Mapping[str, Sequence[str]], clips: Sequence[Clip], content: Mapping[str, str], videos: str
) -> list[Finding]:
    """Look for all three; ``content`` is a digest of each video's bytes, ``videos`` the place to name for them.

    What an index shows by itself, one id, video or signer in two splits, has rules of its own.
    """
    by_id = {clip.clip_id: clip for clip in clips}
    chosen = {split: [by_id[name] for name in splits.get(split, ()) if name in by_id] for split in SPLITS}
    return [*_same_videos(chosen, content, videos), *_same_signers(chosen), *_same_texts(chosen)]


def spelling_key(name: str) -> str:
    """The same for names that differ in case, blanks or accents alone."""
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return "".join(char for char in decomposed if not (char.isspace() or unicodedata.combining(char)))


def _same_videos(chosen: Mapping[str, Sequence[Clip]], content: Mapping[str, str], place: str) -> list[Finding]:
    groups: dict[str, list[str]] = {}
    for video_id, digest in sorted(content.items()):
        groups.setdefault(digest, []).append(video_id)
    used = _splits_of(chosen, lambda clip: clip.video_id)
    leaks, copies = [], []
    for ids in (ids for ids in groups.values() if len(ids) > 1):
        splits = {split for video_id in ids for split in used.get(video_id, ())}
        if len(splits) > 1:
            leaks.append(f"{' = '.join(map(shown, ids))} ({', '.join(split for split in SPLITS if split in splits)})")
        else:
            copies.append(" = ".join(map(shown, ids)))
    found: tuple[tuple[list[str], str, str, Severity], ...] = (
        (leaks, "are in several splits under several names", "keep one of each, and its clips in one split", "error"),
        (copies, "have several names", "keep one of each: duplicates count twice", "warning"),
    )
    return [
        SAME_VIDEO.breach(place, f"{len(groups):,} videos {what}, byte for byte: {few(groups)}", fix, severity=severity)
        for groups, what, fix, severity in found
        if groups
    ]


def _same_signers(chosen: Mapping[str, Sequence[Clip]]) -> list[Finding]:
    spellings: dict[str, list[str]] = {}
    used = _splits_of(chosen, lambda clip: clip.signer)
    for signer in used:
        spellings.setdefault(spelling_key(signer), []).append(signer)
    leaks = [
        " = ".join(f"{shown(name)} ({', '.join(used[name])})" for name in names)
        for names in spellings.values()
        if len(names) > 1 and len({split for name in names for split in used[name]}) > 1
    ]
    if not leaks:
        return []
    fix = "write one name if these are one person, and divide the corpus again: scores hold for known signers only"
    return [SIGNER_SPELLING.breach("meta.csv", f"signers in several splits who may be one: {few(leaks)}", fix)]


def _same_texts(chosen: Mapping[str, Sequence[Clip]]) -> list[Finding]:
    known = {text_key(clip.text) for clip in chosen["train"]} - {""}
    findings = []
    for split in ("val", "test"):
        texts = [clip for clip in chosen[split] if clip.text.strip()]
        repeated = [clip for clip in texts if text_key(clip.text) in known]
        if repeated:
            found = (
                f"{len(repeated):,} of {len(texts):,} texts of {split} ({len(repeated) / len(texts):.0%}) are in train:"
                f" {few_ids(clip.clip_id for clip in repeated)}"
            )
            is_much = len(repeated) > MANY_TEXTS_SHARE * len(texts)
            fix = "nothing to do if they were signed again; scores are partly of texts that the model was trained on"
            findings.append(
                REPEATED_TEXT.breach(f"index/{split}.csv", found, fix, severity="warning" if is_much else "info")
            )
    return findings


def text_key(text: str) -> str:
    """The same for texts that differ in case or blanks alone."""
    return " ".join(text.casefold().split())


def _splits_of(chosen: Mapping[str, Iterable[Clip]], key: Callable[[Clip], str | None]) -> dict[str, list[str]]:
    """Video or signer to the splits in which it is, in their order."""
    found: dict[str, list[str]] = {}
    for split, clips in chosen.items():
        for name in {name: True for clip in clips if (name := key(clip)) is not None}:
            found.setdefault(name, []).append(split)
    return found
