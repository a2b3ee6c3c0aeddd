"""Checks across files: clips against the extracted videos, and what only videos, tables and splits together show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from signstreams.array_types import Floats
from signstreams.contract import rules
from signstreams.contract.check_records import VideoCheck
from signstreams.contract.inventory import ENDINGS, PLAIN, PROCESSED, Inventory
from signstreams.contract.settings import ContractConfig
from signstreams.corpus.clips import Clip
from signstreams.corpus.corpus import Corpus
from signstreams.corpus.findings import Finding, Severity, few, few_ids
from signstreams.corpus.gloss import Gloss, GlossVocabulary, ctc_steps_needed
from signstreams.formats.arrays import frames_of_span
from signstreams.ids import shown
from signstreams.language import counted
from signstreams.streams import BY_NAME, STREAMS

META = "meta.csv"
GLOSS = "annotations/gloss.csv"
DECLARED_S, DECLARED_RATIO = 0.5, 0.05
"""A declared duration or number of frames may be off by half a second or by a twentieth, whichever is more."""

# -- Clips of one video


def check_clips(
    clips: Sequence[Clip], check: VideoCheck, times_s: Floats | None, config: ContractConfig
) -> tuple[list[Finding], dict[str, int]]:
    """Check the spans and declared numbers of the clips of one video.

    Returns findings, and the number of frames of each clip; empty where ``times_s`` (T,), which rise, are unknown.
    """
    findings: list[Finding] = []
    num_frames: dict[str, int] = {}
    measured_fps = check.source_fps or 0.0  # what a GIF declares is a guess: its times are whole hundredths of a second
    is_whole = check.spans_s is None and check.fps == check.source_fps
    if is_whole and times_s is not None and len(times_s) > 1 and times_s[-1] > times_s[0]:
        measured_fps = float((len(times_s) - 1) / (times_s[-1] - times_s[0]))
    for clip in clips:
        if times_s is not None and len(times_s):
            num_frames[clip.clip_id] = len(frames_of_span(times_s, clip.start_s, clip.end_s))
        findings += _check_clip(clip, check, num_frames.get(clip.clip_id), measured_fps, config)
    return findings, num_frames


def _check_clip(
    clip: Clip, check: VideoCheck, num_frames: int | None, measured_fps: float, config: ContractConfig
) -> Iterator[Finding]:
    """Compare a clip to its video, of which it holds ``num_frames``; None when their times are unknown."""
    name, length_s = f"clip {shown(clip.clip_id)}", check.duration_s
    if clip.start_s is not None and clip.end_s is not None:
        length_s = clip.end_s - clip.start_s
        span = f"{name} from {clip.start_s:g} to {clip.end_s:g} s"
        if check.duration_s is not None and clip.end_s > check.duration_s + config.clip_tolerance_s:
            found = f"{name} ends at {clip.end_s:g} s, its video at {check.duration_s:.2f} s"
            fix = "correct the times, or replace a truncated video"
            yield rules.CLIP_INSIDE.breach(META, found, fix, row=clip.row)
        if num_frames is not None and check.spans_s is not None:  # only spans of the video were extracted
            frame_s = 1 / check.fps if check.fps else 0.0
            end_s = min(clip.end_s, check.duration_s or clip.end_s)
            if not any(start - frame_s <= clip.start_s and end_s <= end + frame_s for start, end in check.spans_s):
                found = f"{span} is not among the extracted spans"
                yield rules.CLIP_EXTRACTED.breach(META, found, "extract its video again", row=clip.row)
        if num_frames == 0:
            yield rules.CLIP_FRAMES.breach(META, f"{span} holds no frame", "correct start and end", row=clip.row)
    if not check.source_fps:
        return
    if clip.fps is not None and not any(
        abs(clip.fps - fps) <= config.fps_tolerance * fps for fps in (check.source_fps, measured_fps)
    ):
        found = f"{name} declares {clip.fps:g} fps, its video has {check.source_fps:g}"
        fix = "correct the column fps or remove it: times come from the video's timestamps"
        yield rules.FPS.breach(META, found, fix, row=clip.row)
    declared_s = (
        ("duration", clip.duration_s),
        ("frame_count", None if clip.frame_count is None else clip.frame_count / check.source_fps),
    )
    for column, value_s in declared_s:
        if value_s is None or length_s is None:
            continue
        if abs(value_s - length_s) > max(DECLARED_S, DECLARED_RATIO * length_s):
            found = f"{name}: {column} means {value_s:.2f} s, but it lasts {length_s:.2f} s"
            fix = "correct the column or remove it; it is not used"
            yield rules.CLIP_DECLARED.breach(META, found, fix, row=clip.row)


# -- Files and videos of the whole corpus


def check_processed(
    inventory: Inventory, video_ids: Collection[str], loose_ids: Collection[str], *, are_all_known: bool
) -> list[Finding]:
    """Find files below ``processed/`` that belong to no video: pretraining reads whole folders and would include them.

    ``loose_ids`` are the videos of loose crops among ``video_ids``, which are those of the corpus; unless these
    ``are_all_known``, files of other videos are not reported.
    """
    findings = []
    for kind, ending in ENDINGS.items():
        crops = inventory.loose.get(kind, {})
        beside = [
            f"{name}{tail}" for name in crops if name in video_ids and name not in loose_ids for tail in crops[name]
        ]
        stray = []
        if are_all_known:
            stray = [f"{video_id}{ending}" for video_id in inventory.files[kind] if video_id not in video_ids]
            stray += [f"{name}{tail}" for name in crops if name not in video_ids for tail in crops[name]]
        foreign = list(inventory.others[kind])
        foreign += [
            f"{name}{PLAIN}"
            for name in inventory.plain.get(kind, ())
            if name not in loose_ids or name in inventory.files[kind]
        ]
        found = (
            (rules.UNEXPECTED, stray, "files of videos that are not there", "remove them, or bring the videos back"),
            (rules.UNEXPECTED, beside, "loose crops beside the archives", "remove them: archives hold all crops"),
            (rules.FOREIGN, foreign, "other files", "remove them"),
        )
        findings += [
            rule.breach(f"{PROCESSED}/{kind}", f"{len(names):,} {what}: {few_ids(sorted(names))}", fix)
            for rule, names, what, fix in found
            if names
        ]
    return findings


def check_videos(checks: Sequence[VideoCheck], config: ContractConfig) -> list[Finding]:
    """Check for too many quarantined videos, empty streams, and videos that were extracted with other settings."""
    findings = []
    usable = [check for check in checks if check.status in ("ok", "loose")]
    quarantined = [check for check in checks if check.status == "quarantined"]
    if len(quarantined) > config.max_failed_fraction * len(checks):
        found = (
            f"{len(quarantined):,} of {len(checks):,} videos are quarantined (max_failed_fraction "
            f"{config.max_failed_fraction:g}): {few_ids(check.video_id for check in quarantined)}"
        )
        fix = "replace or remove these videos, or raise --max-failed-fraction"
        findings.append(rules.QUARANTINE_FRACTION.breach(PROCESSED, found, fix))
    num_frames = sum(check.num_frames for check in checks)
    damaged = sorted((c for c in checks if c.num_damaged_frames), key=lambda c: -c.num_damaged_frames)
    num_damaged = sum(check.num_damaged_frames for check in damaged)
    if num_damaged > config.max_damaged_fraction * num_frames:
        found = (
            f"{num_damaged:,} of {num_frames:,} frames are damaged (max_damaged_fraction "
            f"{config.max_damaged_fraction:g}), most in {few_ids(check.video_id for check in damaged)}"
        )
        fix = "fetch these videos again and extract them again, leave them out, or raise --max-damaged-fraction"
        findings.append(rules.DAMAGED_FRACTION.breach(PROCESSED, found, fix))
    for stream in STREAMS:
        if usable and not any(check.num_crops(stream) for check in usable):
            severity: Severity = "error" if stream in config.required_streams else "warning"
            fix = "check that signers are in the picture, lit and large enough; without crops it cannot be pretrained"
            place = f"{PROCESSED}/{stream}"
            findings.append(rules.EMPTY_STREAM.breach(place, "no crop in the whole corpus", fix, severity=severity))
    return findings + _check_settings([check for check in checks if check.status == "ok"])


def _check_settings(extracted: Sequence[VideoCheck]) -> list[Finding]:
    place = f"{PROCESSED}/metadata"
    findings = []
    sizes, _ = _common(extracted, lambda check: check.crop_px)
    if len(sizes) > 1:
        found = ", ".join(f"{size} px in {count:,} videos" for size, count in sizes)
        findings.append(rules.CROP_SIZE.breach(place, found, "extract all videos with one --crop-px"))
    privacy, others = _common(extracted, lambda check: check.face_privacy)
    if len(privacy) > 1:
        found = ", ".join(f"{value} in {count:,} videos" for value, count in privacy)
        found += f"; not {privacy[0][0]}: {few_ids(others)}"
        findings.append(rules.PRIVACY.breach(place, found, "extract all videos with one --face-privacy"))
    digests, others = _common(extracted, lambda check: check.settings_digest)
    if len(digests) > 1:
        found = f"{len(others):,} of {len(extracted):,} videos were extracted with other settings: {few_ids(others)}"
        fix = "extract them again, or make sure that the difference does no harm"
        findings.append(rules.SETTINGS.breach(place, found, fix))
    return findings


def _common(
    checks: Sequence[VideoCheck], value_of: Callable[[VideoCheck], object]
) -> tuple[list[tuple[object, int]], list[str]]:
    """Values and their counts, the most common first; ids of the videos that have another than the most common."""
    counts = Counter(map(value_of, checks)).most_common()
    return counts, [check.video_id for check in checks if value_of(check) != counts[0][0]]


def check_coverage(check: VideoCheck, config: ContractConfig) -> list[Finding]:
    """Whether the signer's body, face and hands were found in most frames of one video."""
    names = {record.kind: record.path for record in check.files} if check.status == "ok" else {}
    findings = []
    for kind, ratio in check.coverage.items():
        least: float = getattr(config.coverage, "min_pose_ratio" if kind == "pose" else BY_NAME[kind].coverage)
        if ratio < least and kind in names:
            fix = "look at the video: is the signer in the picture, lit and large enough?"
            found = f"{kind} in {ratio:.1%} of {check.num_frames:,} frames (warned of below {least:.0%})"
            findings.append(rules.COVERAGE.breach(names[kind], found, fix))
    return findings


# -- meta.csv and glosses


def check_clip_table(corpus: Corpus, checks: Sequence[VideoCheck], config: ContractConfig) -> list[Finding]:
    """Check for rows without times, clips without text, videos without clips, clips of quarantined videos."""
    if not corpus.has_meta:
        return []
    findings = []
    num_untimed = len(corpus.meta.untimed_rows)
    if num_untimed > config.max_untimed_fraction * corpus.meta.num_rows:
        found = (
            f"{num_untimed:,} of {corpus.meta.num_rows:,} rows without exact times (max_untimed_fraction "
            f"{config.max_untimed_fraction:g}): rows {few(corpus.meta.untimed_rows)}"
        )
        findings.append(rules.CLIP_TIMES.breach(META, found, "correct these rows, or raise --max-untimed-fraction"))
    if not corpus.clips:
        findings.append(rules.CLIP_ANY.breach(META, "no clip", "correct the rows reported here"))
    if textless := [clip.clip_id for clip in corpus.clips if not clip.text.strip()]:
        found = counted(
            "%(num)s clip without a text: %(ids)s",
            "%(num)s clips without a text: %(ids)s",
            len(textless),
            ids=few_ids(textless),
        )
        findings.append(rules.CLIP_TEXT.breach(META, found, "add the texts; translation leaves these clips out"))
    quarantined = {check.video_id for check in checks if check.status == "quarantined"}
    if lost := [clip.clip_id for clip in corpus.clips if clip.video_id in quarantined]:
        found = counted(
            "%(num)s clip of a quarantined video: %(ids)s",
            "%(num)s clips of quarantined videos: %(ids)s",
            len(lost),
            ids=few_ids(lost),
        )
        findings.append(rules.QUARANTINE_CLIPS.breach(META, found, "replace the videos; these clips are left out"))
    with_clip = {clip.video_id for clip in corpus.clips}
    if clipless := [video_id for video_id in corpus.videos if video_id not in with_clip]:
        found = counted(
            "%(num)s video without a clip: %(ids)s",
            "%(num)s videos without a clip: %(ids)s",
            len(clipless),
            ids=few_ids(clipless),
        )
        findings.append(rules.NO_CLIP.breach(META, found, "nothing to do: they serve pretraining"))
    return findings


def check_glosses(
    glosses: Mapping[str, Gloss],
    splits: Mapping[str, Sequence[str]],
    clip_frames: Mapping[str, int],
    clip_ids: Sequence[str],
    config: ContractConfig,
) -> list[Finding]:
    """Check the glosses of val and test against those of train, and their number against the frames of the clip."""
    findings = []
    if without := [clip_id for clip_id in clip_ids if clip_id not in glosses or not glosses[clip_id].labels]:
        found = f"{len(without):,} of {len(clip_ids):,} clips without a gloss: {few_ids(without)}"
        findings.append(rules.GLOSS_ABSENT.breach(GLOSS, found, "add them; CTC leaves these clips out"))
    for gloss in glosses.values():
        needed = ctc_steps_needed(gloss.labels)
        if gloss.clip_id in clip_frames and clip_frames[gloss.clip_id] < needed:
            found = (
                f"clip {shown(gloss.clip_id)} has {clip_frames[gloss.clip_id]:,} frames for {len(gloss.labels):,} "
                f"glosses, which need {needed:,}"
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
        f"{few_ids(label for label, _ in unknown.most_common())}"
    )
    is_error = unknown.total() > config.max_unknown_gloss_fraction * len(held_out)
    fix = "correct misspelt glosses, or divide the corpus so that train has them"
    return [rules.VOCABULARY.breach(GLOSS, found, fix, severity="error" if is_error else "warning")]
