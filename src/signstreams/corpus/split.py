"""Divide clips into train, val and test so that no video, and where it can be no signer, is in two of them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from signstreams.config.corpus import SplitConfig
from signstreams.corpus.clips import Clip
from signstreams.errors import UserError
from signstreams.formats.layout import SPLITS


@dataclass(frozen=True)
class Split:
    """Who is in which split.

    Attributes:
        clip_ids: Split name to its clips, in the order of the corpus.
        group_by: ``signer`` or ``video``: what is kept together; ``meta`` when meta.csv's own column was used.
        groups: Name of each group (its first signer or video) to its split.
        notes: What one should know: a split that stays empty, a signer in two splits.
    """

    clip_ids: dict[str, list[str]]
    group_by: str
    groups: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def split_clips(clips: Sequence[Clip], config: SplitConfig) -> Split:
    """Meta.csv's own ``split`` where any clip has one, else `assign_groups` over signers or videos.

    Raises:
        UserError: When signers are to be kept together and none is known.
    """
    if any(clip.split for clip in clips):
        return _declared_split(clips)
    has_signers = any(clip.signer for clip in clips)
    if config.group_by == "signer" and not has_signers:
        raise UserError("meta.csv: no signer, expected a column 'signer' for group_by=signer; use group_by=video")
    wanted = 1 + (config.val_fraction > 0) + (config.test_fraction > 0)
    groups = _components(clips, by_signer=config.group_by != "video")
    group_by = "signer" if has_signers and config.group_by != "video" else "video"
    notes = []
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
    """Group name to split, from names, sizes and seed alone.

    Groups stand in an order given by a hash of seed and name. Validation takes from its front and test from its back
    until another group would be too much; train keeps the middle, and never nothing. So a new video moves few others.

    Args:
        sizes: Clips in each group.
        config: Seed and fractions.
    """
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{config.seed}\0{name}".encode()).digest())
    total = sum(sizes.values())
    assigned: dict[str, str] = {}
    wanted = [("val", config.val_fraction, order), ("test", config.test_fraction, order[::-1])]
    wanted = [item for item in wanted if item[1] > 0]
    for place, (split, fraction, queue) in enumerate(wanted):
        still_to_fill = len(wanted) - place  # the later splits and train: each keeps one group at least
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
    """Clips that share a video (and, ``by_signer``, a signer, through any chain), named by their least key."""
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
