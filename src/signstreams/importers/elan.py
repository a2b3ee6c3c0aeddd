"""ELAN files: one clip for each annotation of a tier of sentences, glosses from the tiers of the hands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple
from urllib.parse import unquote

from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding, Rule, few, few_ids
from signstreams.errors import UserError
from signstreams.formats.elan import ElanFile, Medium, Tier
from signstreams.formats.elan import read_elan as read_file
from signstreams.formats.subtitles import Cue
from signstreams.formats.video_sources import search
from signstreams.ids import by_composition, composed, shown
from signstreams.importers.draft import Draft, Taken
from signstreams.importers.media import folders_below
from signstreams.importers.settings import ImportConfig
from signstreams.importers.tables import what_is_there


@dataclass(frozen=True)
class Convention:
    """How a corpus names its tiers; ``*`` stands for any letters."""

    corpus: str
    text: tuple[str, ...]
    gloss: tuple[str, ...]
    language: str | None


CONVENTIONS = (
    Convention("DGS-Korpus", ("Deutsche_Übersetzung_*",), ("Lexem_Gebärde_?_*",), "de_DE"),
    Convention("Corpus NGT", ("TranslationNarrow*",), ("GlossL*", "GlossR*"), "nl_XX"),
    Convention("Auslan or BSL Corpus", ("FreeTransl*", "Free Transl*"), ("RH-IDgloss*", "LH-IDgloss*"), "en_XX"),
)
"""Tiers of published corpora, which are taken where no others are named."""

WHOLE = Rule("elan.file", "warning", "an annotation file of ELAN")
ANNOTATION = Rule("elan.annotation", "warning", "annotations with a start and an end in the file, each tier once")
NO_TIER = Rule("elan.no_tier", "warning", "a tier of sentences")
MEDIA = Rule("elan.media", "warning", "one video of the signer")
GLOSS_TIER = Rule("elan.gloss_tier", "warning", "tiers of glosses of the people whose sentences are there")
GLOSS_OUTSIDE = Rule("elan.gloss_outside", "warning", "glosses inside a sentence")

_OF_SIGNER = re.compile(r"[ _-]([A-Za-z]|[A-Za-z]?\d+)$")  # GlossL S1, Lexem_Gebärde_r_A
_GENERIC = re.compile(r"[A-Za-z]?\d?")  # A, B, S1: a place in one file, not a person
_SAME_SIGN_S = 0.2  # overlap from which on one gloss on both hands is one sign with two hands


def read_elan(config: ImportConfig) -> Draft:
    """Every .eaf in the source and below."""
    paths = sorted(path for path in config.source.rglob("*.eaf") if not path.name.startswith("."))
    if not paths:
        raise UserError(f"{config.source}: no .eaf in it or below, {what_is_there(config)}; name their folder")
    draft = Draft(config.source.name, config.language)
    files = {}
    for path in paths:
        name = path.relative_to(config.source).as_posix()
        try:
            files[path] = read_file(path)
        except ValueError as error:
            draft.issues.append(WHOLE.breach(name, str(error), "open it in ELAN and save it again, or leave it out"))
        else:
            draft.issues += _findings(files[path], name)
    convention = _convention(files.values(), config)
    draft.language = config.language or convention.language
    said = f"sentences from the tiers {few(convention.text)}, glosses from {few(convention.gloss) or 'none'}"
    draft.notes.append(f"{said} ({convention.corpus})")
    draft.folders = folders_below(config.videos or [config.source])
    present = set(search(draft.folders)[0])
    stems = Counter(path.stem for path in paths)
    for path, eaf in files.items():
        name = path.relative_to(config.source).as_posix()
        prefix = path.stem if stems[path.stem] == 1 else f"{path.parent.name}_{path.stem}"
        if eaf.tiers:
            _take(draft, eaf, convention, present, name, path.stem, prefix)
    draft.notes.append("a clip's id is FILE_<participant>_<start in ms>; blanks in a gloss become _")
    return draft


def _findings(eaf: ElanFile, name: str) -> list[Finding]:
    """One for each kind of fault, at the first of its places."""
    kinds: dict[str, list[str]] = {}
    rows: dict[str, int] = {}
    for fault in eaf.faults:
        kinds.setdefault(fault.kind, []).append(str(fault))
        rows.setdefault(fault.kind, fault.line)
    fix = "correct it in ELAN; what has no times is left out"
    return [
        ANNOTATION.breach(name, f"{len(places):,} times {kind}: {few(places)}", fix, row=rows[kind] or None)
        for kind, places in kinds.items()
    ]


def _convention(files: Iterable[ElanFile], config: ImportConfig) -> Convention:
    """The tiers that were named, else those of the one known corpus whose sentences are there.

    Raises:
        UserError: It is not clear which tiers hold the sentences, or none has a name that was given.
    """
    eafs = list(files)
    tiers = [tier for eaf in eafs for tier in eaf.tiers.values()]
    counts = Counter(f"{tier.name} (type {tier.type}, {_size(tier)})" for tier in tiers)
    there = few([text for text, _ in counts.most_common()], 20) or "none"
    if config.text_tiers:
        named = Convention("as named", tuple(config.text_tiers), tuple(config.gloss_tiers), None)
        problems = [
            f"{config.source}: no tier or type {shown(pattern)} in {len(eafs):,} files, found {there}; correct it"
            for pattern in (*named.text, *named.gloss)
            if not any(_matches(tier, [pattern]) for tier in tiers)
        ]
        if problems:
            raise UserError(problems)
        return named
    fitting = [known for known in CONVENTIONS if any(_matches(tier, known.text) for tier in tiers)]
    if len(fitting) == 1:
        known = fitting[0]
        gloss = tuple(config.gloss_tiers) or known.gloss
        return Convention(f"as in {known.corpus}", known.text, gloss, known.language)
    raise UserError(
        f"{config.source}: no tier is known to hold the sentences, found {there}; say which ones do, by name or type,"
        " with --text-tiers NAME, and glosses with --gloss-tiers RIGHT LEFT"
    )


def _size(tier: Tier) -> str:
    return f"{len(tier.annotations):,} annotations"


def _matches(tier: Tier, patterns: Sequence[str]) -> bool:
    """Whether its name or type is one of the patterns; composed, since macOS decomposes, and ``[RH]`` may be meant."""
    texts = [composed(text) for text in (tier.name, tier.type)]
    return any(text == name or fnmatchcase(text, name) for name in map(composed, patterns) for text in texts)


def _take(
    draft: Draft, eaf: ElanFile, convention: Convention, present: set[str], name: str, stem: str, prefix: str
) -> None:
    tiers = eaf.tiers.values()
    texts = [tier for tier in tiers if _matches(tier, convention.text)]
    if not texts:
        found = f"no such tier among {few_ids(eaf.tiers)}"
        draft.issues.append(NO_TIER.breach(name, found, "name its tier with --text-tiers; the file gives no clip"))
    glosses = [tier for tier in tiers if _matches(tier, convention.gloss) and tier not in texts]
    linked = [_Media.of(medium) for medium in eaf.media]
    owned = {text.name: [tier for tier in glosses if _is_of(tier, text, len(texts) == 1)] for text in texts}
    taken = {tier.name for own in owned.values() for tier in own}
    if texts and (others := [tier for tier in glosses if tier.name not in taken and tier.annotations]):
        count = sum(len(tier.annotations) for tier in others)
        found = f"{count:,} glosses of {few_ids(tier.name for tier in others)}, which are of none of the signers"
        fix = "they are left out; name the same participant in the tiers of sentences and of glosses"
        draft.issues.append(GLOSS_TIER.breach(name, found, fix))
    for text in texts:
        role = _role(text)
        signs = _one_order(owned[text.name])
        media = _media_of(linked, role, stem, present)
        if len(media) > 1:
            found = f"tier {shown(text.name)}: {few_ids(item.name for item in media)} are there"
            fix = f"{shown(media[0].name)} is taken; move the others away if that is wrong"
            draft.issues.append(MEDIA.breach(name, found, fix))
        video = media[0] if media else next(iter(linked), _Media(stem, stem, 0.0))
        used: set[int] = set()
        for sentence in text.annotations:
            inside = [n for n, sign in enumerate(signs) if sentence.start_s <= _middle_s(sign) < sentence.end_s]
            used.update(inside)
            clip = Clip(
                clip_id="_".join(filter(None, (prefix, role, f"{round(sentence.start_s * 1000):08d}"))),
                video_id=video.stem,
                text=sentence.text,
                start_s=round(sentence.start_s + video.origin_s, 3),
                end_s=round(sentence.end_s + video.origin_s, 3),
                signer=_signer(text, role, prefix),
            )
            draft.taken.append(Taken(clip, name, sentence.line, tuple(_label(signs[n].text) for n in inside)))
        if outside := [sign for n, sign in enumerate(signs) if n not in used]:
            found = f"{len(outside):,} of {len(signs):,} glosses in no sentence of the tier {shown(text.name)}"
            fix = "nothing to do: they are left out"
            draft.issues.append(GLOSS_OUTSIDE.breach(name, found, fix, row=outside[0].line))


def _role(tier: Tier) -> str:
    """Which of the people in the file a tier is about: its participant, else the end of its name (``S1``, ``A``)."""
    return tier.participant or _place_of(tier)


def _place_of(tier: Tier) -> str:
    match = _OF_SIGNER.search(tier.name)
    return match[1] if match else ""


def _is_of(gloss: Tier, text: Tier, is_only: bool) -> bool:
    """Whether glosses are of who signs the sentences: by participant where both tiers name one, else by their names.

    To the only tier of sentences belongs what is not of somebody else: names that end in R or L are of a hand.
    """
    if gloss.participant and text.participant:
        return gloss.participant == text.participant
    one, other = _place_of(gloss).casefold(), _place_of(text).casefold()
    return one == other or (is_only and (not one or not other or one in ("r", "l")))


def _signer(tier: Tier, role: str, prefix: str) -> str | None:
    """The participant; of a mere place (A, S1), which is somebody else in each file, also the file."""
    if not role:
        return None
    is_place = _GENERIC.fullmatch(role) is not None
    return f"{prefix} {role}" if is_place else role


def _one_order(tiers: Sequence[Tier]) -> list[Cue]:
    """Glosses of all tiers in order of time; one that both hands have at a time counts once."""
    merged: list[Cue] = []
    signs = (sign for tier in tiers for sign in tier.annotations if sign.text)
    for sign in sorted(signs, key=lambda sign: (sign.start_s, sign.end_s)):
        is_known = any(
            before.text == sign.text
            and min(before.end_s, sign.end_s) - sign.start_s >= min(_SAME_SIGN_S, 0.5 * (sign.end_s - sign.start_s))
            for before in merged[-4:]
        )
        if not is_known:
            merged.append(sign)
    return merged


def _middle_s(sign: Cue) -> float:
    return (sign.start_s + sign.end_s) / 2


def _label(text: str) -> str:
    return text.replace(" ", "_")


class _Media(NamedTuple):
    """A linked media file."""

    stem: str  # its name without folder and ending
    name: str  # its name
    origin_s: float  # time in it at which the annotations' clock is 0

    @classmethod
    def of(cls, medium: Medium) -> _Media:
        """Of a link, which may be a path of another system."""
        name = re.split(r"[/\\]", unquote(medium.url or medium.relative_url))[-1]
        return cls(name.rpartition(".")[0] or name, name, medium.origin_s)


def _media_of(media: Sequence[_Media], role: str, stem: str, present: set[str]) -> list[_Media]:
    """The linked videos that are there; of several, those that name the participant; else one named like the file."""
    known = by_composition(present)
    there = [item for item in {item.stem: item for item in media}.values() if composed(item.stem) in known]
    if len(there) > 1 and role:
        named = [item for item in there if _names(item.stem, role)]
        there = named or there
    if not there and composed(stem) in known:
        return [_Media(stem, stem, 0.0)]
    return there


def _names(stem: str, role: str) -> bool:
    """Whether the name of a video has the participant as a part: ``_S001_``, or DGS-Korpus' ``_1a1`` for A."""
    parts = [part.casefold() for part in re.split(r"[^0-9A-Za-z]+", stem)]
    pattern = re.compile(rf"\d{re.escape(role.casefold())}\d*") if len(role) == 1 else None
    return any(part == role.casefold() or (pattern and pattern.fullmatch(part)) for part in parts)
