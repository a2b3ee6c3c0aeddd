"""Train, val and test: drawn so that no video or signer is in two of them, written to and read from index files."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding, Rule, few, few_ids, raise_errors
from signstreams.corpus.settings import SplitConfig
from signstreams.corpus.table import CONVERTED, READABLE, decode_text
from signstreams.errors import UserError
from signstreams.files import write_json, write_text
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.ids import by_composition
from signstreams.language import counted

# -- Drawing


@dataclass(frozen=True)
class Split:
    """The clips of each split."""

    clip_ids: dict[str, list[str]]  # split name to its clips, in the order of the corpus
    group_by: str  # what is kept together, ``signer`` or ``video``; ``meta`` when the column of meta.csv was used
    groups: dict[str, str] = field(default_factory=dict)  # Name of each group (its first signer or video) to its split
    notes: list[str] = field(default_factory=list)  # remarks for the user, such as a split that stays empty


def split_clips(clips: Sequence[Clip], config: SplitConfig) -> Split:
    """Use the column ``split`` of meta.csv where any clip has one, else `assign_groups` over signers or videos."""
    if any(clip.split for clip in clips):
        return _declared_split(clips)
    has_signers = any(clip.signer for clip in clips)
    if config.group_by == "signer" and not has_signers:
        raise UserError("meta.csv: no signer, expected a column 'signer' for group_by=signer; use group_by=video")
    wanted = 1 + (config.val_fraction > 0) + (config.test_fraction > 0)
    groups = _components(clips, by_signer=config.group_by != "video")
    group_by = "signer" if has_signers and config.group_by != "video" else "video"
    notes = []
    if config.group_by == "auto" and (unknown := sum(not clip.signer for clip in clips)):
        whose = "no clip" if unknown == len(clips) else f"{_counted(len(clips) - unknown, 'clip')} of {len(clips):,}"
        notes.append(
            f"{whose} with a signer in meta.csv: unknown signers cannot be kept apart, and may be in several splits"
        )
    if config.group_by == "auto" and group_by == "signer" and len(groups) < wanted:
        by_video = _components(clips, by_signer=False)
        if len(by_video) > len(groups):
            notes.append(
                f"{_counted(len(groups), 'signer')} cannot fill {wanted} splits: videos are kept together instead, "
                "so that a signer is in several splits"
            )
            groups, group_by = by_video, "video"
    assigned = assign_groups({name: len(members) for name, members in groups.items()}, config)
    split_of = {clip.clip_id: assigned[name] for name, members in groups.items() for clip in members}
    clip_ids = {split: [clip.clip_id for clip in clips if split_of[clip.clip_id] == split] for split in SPLITS}
    for split, fraction in (("val", config.val_fraction), ("test", config.test_fraction)):
        if fraction > 0 and not clip_ids[split]:
            notes.append(f"{split} stays empty: {_counted(len(groups), group_by)} cannot fill {wanted} splits")
    return Split(clip_ids, group_by, assigned, notes)


def assign_groups(sizes: dict[str, int], config: SplitConfig) -> dict[str, str]:
    """Group name to split; depends on names, numbers of clips (``sizes``), seed and fractions only.

    A hash of seed and name orders the groups. Validation takes groups from the front and test from the back until
    another one would be too much; train keeps the middle, one group at least. So a new video moves few others.
    """
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{config.seed}\0{name}".encode()).digest())
    total = sum(sizes.values())
    assigned: dict[str, str] = {}
    wanted = [("val", config.val_fraction, order), ("test", config.test_fraction, order[::-1])]
    wanted = [item for item in wanted if item[1] > 0]
    for place, (split, fraction, queue) in enumerate(wanted):
        still_to_fill = len(wanted) - place  # the later splits and train keep one group each, at least
        taken = 0
        for name in queue:
            num_left = len(order) - len(assigned)
            if name in assigned or num_left <= still_to_fill or taken + sizes[name] > fraction * total:
                continue
            assigned[name] = split
            taken += sizes[name]
        left = [name for name in queue if name not in assigned]
        if not taken and len(left) > 1:  # every group is larger than the share: the smallest is the least wrong
            assigned[min(left, key=lambda name: sizes[name])] = split
    return {name: assigned.get(name, "train") for name in sorted(sizes)}


def _components(clips: Iterable[Clip], *, by_signer: bool) -> dict[str, list[Clip]]:
    """Groups of clips connected by a shared video (``by_signer``: or signer), named by their least key."""
    clips = list(clips)
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for clip in clips:
        video = root(f"video {clip.video_id}")
        if by_signer and clip.signer:
            first, second = sorted((video, root(f"signer {clip.signer}")))
            parent[second] = first
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[root(f"video {clip.video_id}")].append(clip)
    return dict(sorted(groups.items()))


def _declared_split(clips: Sequence[Clip]) -> Split:
    counts = Counter(clip.split for clip in clips)
    notes = [f"{split} stays empty: no row of meta.csv is in it" for split in SPLITS if not counts[split]]
    if counts[None]:
        notes.append(f"{_counted(counts[None], 'clip')} without a split in meta.csv stay in none")
    return Split(
        {split: [clip.clip_id for clip in clips if clip.split == split] for split in SPLITS}, "meta", {}, notes
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


# -- Index files: one per split, with a clip id per line

PRESENT = Rule("split.present", "error", "index/train.csv, index/val.csv and index/test.csv")
KNOWN = Rule("split.known", "error", "one clip id of the corpus per line, without a header")
ONCE = Rule("split.once", "error", "each clip id once")
DISJOINT = Rule("split.disjoint", "error", "each clip in one split")
VIDEO_DISJOINT = Rule("split.video_disjoint", "error", "all clips of a video in one split")
SIGNER_DISJOINT = Rule("split.signer_disjoint", "warning", "all clips of a signer in one split")
UNASSIGNED = Rule("split.unassigned", "warning", "every clip in one split")
EMPTY = Rule("split.empty", "warning", "clips in every split")
TRAIN = Rule("split.train", "error", "clips in train")
INDEX_RULES = (PRESENT, KNOWN, ONCE, DISJOINT, VIDEO_DISJOINT, SIGNER_DISJOINT, UNASSIGNED, EMPTY, TRAIN)


@dataclass
class Index:
    """Clip ids of each split whose file exists, and findings."""

    splits: dict[str, list[str]] = field(default_factory=dict)
    issues: list[Finding] = field(default_factory=list)


def read_index(layout: CorpusLayout, clips: Collection[Clip], absent: Collection[str] = ()) -> dict[str, list[str]]:
    """Split name (train, val, test) to its clip ids; ids in ``absent`` are skipped.

    Raises:
        UserError: All problems, one per line.
    """
    index = scan_index(layout, clips, absent)
    raise_errors(index.issues)
    return index.splits


def scan_index(layout: CorpusLayout, clips: Collection[Clip], absent: Collection[str] = ()) -> Index:
    """As `read_index`; problems are in ``issues`` and nothing is raised."""
    index = Index()
    left_out = set(absent)
    as_known = by_composition(clip.clip_id for clip in clips)
    missing = [split for split in SPLITS if not layout.index(split).is_file()]
    if missing:
        found = "no such file" if len(missing) == 1 else f"no such files: {few([f'{split}.csv' for split in missing])}"
        fix = f"run: signstreams split --root {layout.root}"
        index.issues.append(PRESENT.breach(_name(missing[0]) if len(missing) == 1 else "index", found, fix))
    for split in SPLITS:
        path = layout.index(split)
        name = _name(split)
        if split in missing:
            continue
        try:
            text, encoding = decode_text(path.read_bytes())
        except ValueError as error:
            index.issues.append(READABLE.breach(name, str(error), "save the file again as UTF-8"))
            continue
        if encoding:
            index.issues.append(CONVERTED.breach(name, f"{encoding}, read as such", "save the file again as UTF-8"))
        ids = (as_known.get(line.strip(), line.strip()) for line in text.split("\n"))
        index.splits[split] = [clip_id for clip_id in ids if clip_id and clip_id not in left_out]
    index.issues += _check(index.splits, {clip.clip_id: clip for clip in clips})
    return index


def write_splits(layout: CorpusLayout, clips: Collection[Clip], config: SplitConfig) -> Split:
    """Divide ``clips``; write index/{train,val,test}.csv, and index/split.json, which records how they were drawn.

    Raises:
        UserError: There is no clip, or an index that this function did not write.
    """
    clips = list(clips)
    if not clips:
        raise UserError(f"{layout.root}: no clip, expected at least one to divide; check meta.csv and the videos")
    record = layout.index("train").parent / "split.json"
    foreign = [_name(split) for split in SPLITS if layout.index(split).exists()]
    if foreign and not record.is_file():
        raise UserError(
            f"{layout.root}: {few(foreign)} without index/split.json, expected only files that split_corpus.py wrote; "
            "remove them to divide the corpus again, or keep them as they are"
        )
    split = split_clips(clips, config)
    write_json(record, split_record(split, clips, config))  # first: after a crash the next run may replace the files
    for name, ids in split.clip_ids.items():
        write_text(layout.index(name), index_text(ids))
    return split


def split_record(split: Split, clips: Collection[Clip], config: SplitConfig) -> dict[str, Any]:
    """Content of index/split.json: how a split was drawn."""
    return {
        "seed": config.seed,
        "val_fraction": config.val_fraction,
        "test_fraction": config.test_fraction,
        "group_by": split.group_by,
        "num_clips": {name: len(ids) for name, ids in split.clip_ids.items()},
        "num_unassigned": len(clips) - sum(map(len, split.clip_ids.values())),
        "notes": split.notes,
        "groups": split.groups,
    }


def index_text(clip_ids: Iterable[str]) -> str:
    """Content of an index file."""
    return "".join(f"{clip_id}\n" for clip_id in clip_ids)


def _name(split: str) -> str:
    return f"index/{split}.csv"


def _check(splits: Mapping[str, list[str]], clips: Mapping[str, Clip]) -> list[Finding]:
    issues = []
    places: dict[str, list[str]] = {}
    for split, ids in splits.items():
        name = _name(split)
        unknown = [clip_id for clip_id in dict.fromkeys(ids) if clip_id not in clips]
        if unknown:
            found = f"{len(unknown):,} of {len(ids):,} ids name no clip: {few_ids(unknown)}"
            issues.append(KNOWN.breach(name, found, "remove these lines, or add or correct their rows in meta.csv"))
        repeated = [clip_id for clip_id, count in Counter(ids).items() if count > 1]
        if repeated:
            found = counted(
                "%(num)s id more than once: %(ids)s",
                "%(num)s ids more than once: %(ids)s",
                len(repeated),
                ids=few_ids(repeated),
            )
            issues.append(ONCE.breach(name, found, "remove the further lines"))
        if not ids and split == "train":
            issues.append(TRAIN.breach(name, "no clip", "divide the corpus again"))
        elif not ids:
            issues.append(EMPTY.breach(name, "no clip", f"add videos: nothing can be measured on {split}"))
        for clip_id in dict.fromkeys(ids):
            places.setdefault(clip_id, []).append(split)
    issues += _overlaps(DISJOINT, "clip", places)
    known = {clip_id: names for clip_id, names in places.items() if clip_id in clips}
    issues += _overlaps(VIDEO_DISJOINT, "video", _places_of(known, lambda clip: clip.video_id, clips))
    issues += _overlaps(SIGNER_DISJOINT, "signer", _places_of(known, lambda clip: clip.signer, clips))
    absent = [clip_id for clip_id in clips if clip_id not in places]
    if absent and len(splits) == len(SPLITS):
        found = counted(
            "%(num)s clip in no split: %(ids)s", "%(num)s clips in no split: %(ids)s", len(absent), ids=few_ids(absent)
        )
        issues.append(UNASSIGNED.breach("index", found, "add them to one, or leave them out on purpose"))
    return issues


def _places_of(
    places: Mapping[str, list[str]], key: Callable[[Clip], str | None], clips: Mapping[str, Clip]
) -> dict[str, list[str]]:
    merged: dict[str, set[str]] = {}
    for clip_id, splits in places.items():
        if (name := key(clips[clip_id])) is not None:
            merged.setdefault(name, set()).update(splits)
    return {name: sorted(splits, key=SPLITS.index) for name, splits in merged.items()}


def _overlaps(rule: Rule, noun: str, places: Mapping[str, list[str]]) -> list[Finding]:
    """One finding for each combination of splits that share a clip, video or signer."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, splits in places.items():
        if len(splits) > 1:
            shared.setdefault(tuple(splits), []).append(name)
    fix = f"keep each {noun} in one of them"
    if rule.severity == "warning":  # signers: a corpus of few cannot do otherwise
        fix = "divide the corpus by signer, or report its scores as those of known signers"
    issues = []
    for (*others, last), names in shared.items():
        files = ", ".join(map(_name, others))
        issues.append(rule.breach(_name(last), f"also in {files}: {few_ids(names)}", fix))
    return issues
