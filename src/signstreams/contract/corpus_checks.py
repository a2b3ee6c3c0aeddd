"""Corpus-wide checks: clips against what was extracted, and what only all videos, glosses and splits together can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np

from signstreams.array_types import Floats
from signstreams.contract import rules
from signstreams.contract.inventory import ENDINGS, PLAIN, PROCESSED, Inventory
from signstreams.contract.records import VideoCheck
from signstreams.contract.settings import ContractConfig
from signstreams.corpus.clips import Clip
from signstreams.corpus.corpus import Corpus
from signstreams.corpus.findings import Finding, Severity, few
from signstreams.corpus.gloss import Gloss, GlossVocabulary
from signstreams.ids import shown
from signstreams.streams import BY_NAME, STREAMS

# Checks of the clips of one video against what was extracted from it.

META = "meta.csv"
DECLARED_S, DECLARED_RATIO = 0.5, 0.05
"""A declared duration or number of frames may be off by half a second, or by a twentieth."""


def check_clips(
    clips: Sequence[Clip], check: VideoCheck, times_s: Floats | None, config: ContractConfig
) -> tuple[list[Finding], dict[str, int]]:
    """Check spans and declared numbers.

    Args:
        clips: Clips of the video.
        check: What is known of the video.
        times_s: (T,) rising time of each frame; None when they are not known.
        config: Tolerances.

    Returns:
        Findings, and the number of frames of each clip (empty without ``times_s``).
    """
    findings: list[Finding] = []
    num_frames: dict[str, int] = {}
    for clip in clips:
        findings += _check_span(clip, check, config)
        if times_s is not None and len(times_s):
            start_s, end_s = span_s(clip)
            findings += _check_extracted(clip, check)
            num_frames[clip.clip_id] = int(np.diff(np.searchsorted(times_s, (start_s, end_s)))[0])
            if num_frames[clip.clip_id] == 0:
                found = f"clip {shown(clip.clip_id)} from {start_s:g} to {end_s:g} s holds no frame"
                findings.append(rules.CLIP_FRAMES.breach(META, found, "correct start and end", row=clip.row))
        findings += _check_declared(clip, check, config)
    return findings, num_frames


def span_s(clip: Clip) -> tuple[float, float]:
    """First moment and end of a clip; everything for a whole video."""
    if clip.start_s is None or clip.end_s is None:
        return 0.0, float("inf")
    return clip.start_s, clip.end_s


def _check_span(clip: Clip, check: VideoCheck, config: ContractConfig) -> list[Finding]:
    if clip.end_s is None or check.duration_s is None or clip.end_s <= check.duration_s + config.clip_tolerance_s:
        return []
    found = f"clip {shown(clip.clip_id)} ends at {clip.end_s:g} s, its video at {check.duration_s:.2f} s"
    return [rules.CLIP_INSIDE.breach(META, found, "correct the times, or replace a truncated video", row=clip.row)]


def _check_extracted(clip: Clip, check: VideoCheck) -> list[Finding]:
    """Of a video whose spans alone were extracted."""
    if clip.start_s is None or clip.end_s is None or check.spans_s is None:
        return []
    frame_s = 1 / check.fps if check.fps else 0.0
    end_s = min(clip.end_s, check.duration_s or clip.end_s)
    if any(start - frame_s <= clip.start_s and end_s <= end + frame_s for start, end in check.spans_s):
        return []
    found = f"clip {shown(clip.clip_id)} from {clip.start_s:g} to {clip.end_s:g} s is not among the extracted spans"
    return [rules.CLIP_EXTRACTED.breach(META, found, "extract its video again", row=clip.row)]


def _check_declared(clip: Clip, check: VideoCheck, config: ContractConfig) -> list[Finding]:
    findings = []
    if (
        clip.fps is not None
        and check.source_fps
        and abs(clip.fps - check.source_fps) > config.fps_tolerance * check.source_fps
    ):
        found = f"clip {shown(clip.clip_id)} declares {clip.fps:g} fps, its video has {check.source_fps:g}"
        fix = "correct the column fps or remove it: times come from the video's timestamps"
        findings.append(rules.FPS.breach(META, found, fix, row=clip.row))
    length_s = check.duration_s if clip.end_s is None or clip.start_s is None else clip.end_s - clip.start_s
    if length_s is None or not check.source_fps:
        return findings
    slack_s = max(DECLARED_S, DECLARED_RATIO * length_s)
    declared_s = (
        ("duration", clip.duration_s),
        ("frame_count", None if clip.frame_count is None else clip.frame_count / check.source_fps),
    )
    for column, value_s in declared_s:
        if value_s is not None and abs(value_s - length_s) > slack_s:
            found = f"clip {shown(clip.clip_id)}: {column} means {value_s:.2f} s, but it lasts {length_s:.2f} s"
            fix = "correct the column or remove it; it is not used"
            findings.append(rules.CLIP_DECLARED.breach(META, found, fix, row=clip.row))
    return findings


# Corpus-wide checks: what only all videos, meta.csv, glosses and splits together can tell.

GLOSS = "annotations/gloss.csv"


def check_processed(
    inventory: Inventory, video_ids: Collection[str], loose_ids: Collection[str], *, are_all_known: bool = True
) -> list[Finding]:
    """Files below ``processed/`` that belong to no video: pretraining reads whole folders and would take them in.

    Args:
        inventory: What is there.
        video_ids: All videos of the corpus.
        loose_ids: Those of them that are loose crops.
        are_all_known: Otherwise files of a video may look as if it were not there, and nothing is said of these.
    """
    findings = []
    for kind, ending in ENDINGS.items():
        stray = [f"{video_id}{ending}" for video_id in inventory.files[kind] if video_id not in video_ids]
        crops = inventory.loose.get(kind, {})
        beside = [
            f"{name}{tail}" for name in crops if name in video_ids and name not in loose_ids for tail in crops[name]
        ]
        stray += [f"{name}{tail}" for name in crops if name not in video_ids for tail in crops[name]]
        stray = stray if are_all_known else []
        foreign = list(inventory.others[kind])
        for name in inventory.plain.get(kind, ()):
            if name not in loose_ids or name in inventory.files[kind]:
                foreign.append(f"{name}{PLAIN}")
        found = (
            (rules.UNEXPECTED, stray, "files of videos that are not there", "remove them, or bring the videos back"),
            (rules.UNEXPECTED, beside, "loose crops beside the archives", "remove them: archives hold all crops"),
            (rules.FOREIGN, foreign, "other files", "remove them"),
        )
        findings += [
            rule.breach(f"{PROCESSED}/{kind}", f"{len(items):,} {what}: {few(list(map(shown, sorted(items))))}", fix)
            for rule, items, what, fix in found
            if items
        ]
    return findings


def check_videos(checks: Sequence[VideoCheck], config: ContractConfig) -> list[Finding]:
    """Quarantine, empty streams, and whether all videos were extracted alike."""
    findings = []
    extracted = [check for check in checks if check.status == "ok"]
    usable = [check for check in checks if check.status in ("ok", "loose")]
    quarantined = [check for check in checks if check.status == "quarantined"]
    if len(quarantined) > config.max_failed_fraction * len(checks):
        found = (
            f"{len(quarantined):,} of {len(checks):,} videos are quarantined (max_failed_fraction "
            f"{config.max_failed_fraction:g}): {few([shown(check.video_id) for check in quarantined])}"
        )
        fix = "replace or remove these videos, or raise --max-failed-fraction"
        findings.append(rules.QUARANTINE_FRACTION.breach(PROCESSED, found, fix))
    for stream in STREAMS:
        if usable and not any(check.num_crops(stream) for check in usable):
            severity: Severity = "error" if stream in config.required_streams else "warning"
            fix = "check that signers are in the picture, lit and large enough; without crops it cannot be pretrained"
            place = f"{PROCESSED}/{stream}"
            findings.append(rules.EMPTY_STREAM.breach(place, "no crop in the whole corpus", fix, severity=severity))
    sizes = Counter(check.crop_px for check in extracted)
    if len(sizes) > 1:
        found = ", ".join(f"{size} px in {count:,} videos" for size, count in sizes.most_common())
        fix = "extract all videos with one --crop-px"
        findings.append(rules.CROP_SIZE.breach(f"{PROCESSED}/metadata", found, fix))
    shown_faces = Counter(check.face_privacy for check in extracted)
    if len(shown_faces) > 1:
        usual = shown_faces.most_common(1)[0][0]
        others = [check.video_id for check in extracted if check.face_privacy != usual]
        found = (
            ", ".join(f"{privacy} in {count:,} videos" for privacy, count in shown_faces.most_common())
            + f"; not {usual}: {few(list(map(shown, others)))}"
        )
        fix = "extract all videos with one --face-privacy"
        findings.append(rules.PRIVACY.breach(f"{PROCESSED}/metadata", found, fix))
    digests = Counter(check.settings_digest for check in extracted)
    if len(digests) > 1:
        usual = digests.most_common(1)[0][0]
        others = [check.video_id for check in extracted if check.settings_digest != usual]
        found = f"{len(others):,} of {len(extracted):,} videos were made otherwise: {few(list(map(shown, others)))}"
        fix = "extract them again, or see that the difference does no harm"
        findings.append(rules.SETTINGS.breach(f"{PROCESSED}/metadata", found, fix))
    return findings


def check_coverage(check: VideoCheck, config: ContractConfig) -> list[Finding]:
    """Whether the signer's body, face and hands were found in most frames of one video."""
    limits = config.coverage
    names = {record.kind: record.path for record in check.files} if check.status == "ok" else {}
    findings = []
    for kind, ratio in check.coverage.items():
        least: float = getattr(limits, "min_pose_ratio" if kind == "pose" else BY_NAME[kind].coverage)
        if ratio < least and kind in names:
            fix = "look at the video: is the signer in the picture, lit and large enough?"
            found = f"{kind} in {ratio:.1%} of {check.num_frames:,} frames (warned of below {least:.0%})"
            findings.append(rules.COVERAGE.breach(names[kind], found, fix))
    return findings


def check_clip_table(corpus: Corpus, checks: Sequence[VideoCheck], config: ContractConfig) -> list[Finding]:
    """Rows without times, clips without text, videos without clips, clips of quarantined videos."""
    if not corpus.has_meta:
        return []
    findings = []
    num_untimed = len(corpus.untimed_rows)
    if num_untimed > config.max_untimed_fraction * corpus.num_rows:
        found = (
            f"{num_untimed:,} of {corpus.num_rows:,} rows without exact times (max_untimed_fraction "
            f"{config.max_untimed_fraction:g}): rows {few(corpus.untimed_rows)}"
        )
        findings.append(rules.CLIP_TIMES.breach(META, found, "mend these rows, or raise --max-untimed-fraction"))
    if not corpus.clips:
        findings.append(rules.CLIP_ANY.breach(META, "no clip", "mend the rows reported here"))
    mute = [clip for clip in corpus.clips if not clip.text.strip()]
    if mute:
        found = f"{len(mute):,} clips without a text: {few([shown(clip.clip_id) for clip in mute])}"
        findings.append(rules.CLIP_TEXT.breach(META, found, "add the texts; translation leaves these clips out"))
    lost_videos = {check.video_id for check in checks if check.status == "quarantined"}
    lost = [clip for clip in corpus.clips if clip.video_id in lost_videos]
    if lost:
        found = f"{len(lost):,} clips of quarantined videos: {few([shown(clip.clip_id) for clip in lost])}"
        findings.append(rules.QUARANTINE_CLIPS.breach(META, found, "replace the videos; these clips are left out"))
    used = {clip.video_id for clip in corpus.clips}
    bare = [video_id for video_id in corpus.videos if video_id not in used]
    if bare:
        found = f"{len(bare):,} videos without a clip: {few(list(map(shown, bare)))}"
        findings.append(rules.NO_CLIP.breach(META, found, "nothing need be done: they serve pretraining"))
    return findings


def check_glosses(
    glosses: Mapping[str, Gloss],
    splits: Mapping[str, Sequence[str]],
    clip_frames: Mapping[str, int],
    clip_ids: Sequence[str],
    config: ContractConfig,
) -> list[Finding]:
    """Glosses of val and test against those of train; their number against the frames of the clip."""
    findings = []
    bare = [clip_id for clip_id in clip_ids if clip_id not in glosses or not glosses[clip_id].labels]
    if bare:
        found = f"{len(bare):,} of {len(clip_ids):,} clips without a gloss: {few(list(map(shown, bare)))}"
        findings.append(rules.GLOSS_ABSENT.breach(GLOSS, found, "add them; CTC leaves these clips out"))
    for gloss in glosses.values():
        wanted = ctc_frames(gloss.labels)
        if gloss.clip_id in clip_frames and clip_frames[gloss.clip_id] < wanted:
            found = (
                f"clip {shown(gloss.clip_id)} has {clip_frames[gloss.clip_id]:,} frames for {len(gloss.labels):,} "
                f"glosses, which need {wanted:,}"
            )
            findings.append(rules.CTC_LENGTH.breach(GLOSS, found, "correct the gloss or the span", row=gloss.row))
    return findings + _check_vocabulary(glosses, splits, config)


def _check_vocabulary(
    glosses: Mapping[str, Gloss], splits: Mapping[str, Sequence[str]], config: ContractConfig
) -> list[Finding]:
    if "train" not in splits:
        return []
    vocabulary = GlossVocabulary.build(glosses, splits["train"])
    held_out = [
        label
        for split in ("val", "test")
        for clip_id in splits.get(split, ())
        if clip_id in glosses
        for label in glosses[clip_id].labels
    ]
    unknown = Counter(vocabulary.unknown(held_out))
    if not unknown:
        return []
    found = (
        f"{unknown.total():,} of {len(held_out):,} glosses of val and test are not in train: "
        f"{few([shown(label) for label, _ in unknown.most_common()])}"
    )
    is_error = unknown.total() > config.max_unknown_gloss_fraction * len(held_out)
    fix = "correct misspelt glosses, or divide the corpus so that train has them"
    return [rules.VOCABULARY.breach(GLOSS, found, fix, severity="error" if is_error else "warning")]


def ctc_frames(labels: Sequence[str]) -> int:
    """Frames that CTC needs: one for each label, and one for the blank between equal neighbours."""
    return len(labels) + sum(label == other for label, other in pairwise(labels))
