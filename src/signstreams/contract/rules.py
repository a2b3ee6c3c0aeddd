"""Every rule of the data contract, stated once. docs/contract_rules.md is generated from them."""

from __future__ import annotations

from signstreams.corpus.clips import ROW_RULES
from signstreams.corpus.corpus import VIDEO_RULES
from signstreams.corpus.findings import Rule
from signstreams.corpus.gloss import GLOSS_RULES
from signstreams.corpus.leakage import LEAKAGE_RULES
from signstreams.corpus.meta_csv import META_RULES
from signstreams.corpus.splits import INDEX_RULES
from signstreams.corpus.table import TABLE_RULES
from signstreams.integrate.corpus_rules import TRAINING_RULES

EXTRACTED = Rule("video.extracted", "error", "every video extracted")
FRAMES = Rule("video.frames", "error", "at least one frame")
PARTIAL = Rule("video.partial", "warning", "a video that can be read to its end, in whole pictures")
DAMAGED_FRACTION = Rule("video.damaged", "error", "at most max_damaged_fraction of all frames damaged")
NO_CLIP = Rule("video.no_clip", "info", "a clip in every video")
PRESENT = Rule("file.present", "error", "every file of a video")
UNEXPECTED = Rule("file.unexpected", "error", "only files of the corpus's videos")
FOREIGN = Rule("file.foreign", "warning", "only files that extraction writes")
LINK = Rule("file.link", "error", "a file, or a link that stays below the root")

METADATA_READABLE = Rule("metadata.readable", "error", "the record that extraction writes")
METADATA_VIDEO = Rule("metadata.video", "error", "the record of this video")
CHECKSUM = Rule("metadata.checksum", "error", "the file as extraction wrote it")
SOURCE = Rule("metadata.source", "error", "the video as it was when extracted")
STATES = Rule("metadata.states", "error", "the counts of the tracks and keypoints")
STATUS = Rule("metadata.status", "error", "a reason and no frames when quarantined, no reason otherwise")
NUMBERS = Rule("metadata.numbers", "error", "plausible sizes, rates and counts")
SIGNER = Rule("metadata.signer", "error", "a region inside the frame, one number for each person")
SPANS = Rule("metadata.spans", "error", "rising spans, and every frame in one of them")
PRIVACY = Rule("settings.privacy", "error", "one face_privacy in the whole corpus")
CROP_SIZE = Rule("settings.crop_size", "error", "one crop size in the whole corpus")
SETTINGS = Rule("settings.agree", "warning", "all videos extracted with the same settings and detector")
QUARANTINED = Rule("quarantine.video", "warning", "a video that can be read")
QUARANTINE_FRACTION = Rule("quarantine.fraction", "error", "at most max_failed_fraction of the videos quarantined")
QUARANTINE_CLIPS = Rule("quarantine.clips", "warning", "clips of videos that can be read")

LENGTH = Rule("streams.length", "error", "the same number of frames in every file of a video")
EMPTY_STREAM = Rule("streams.empty", "error", "at least one crop of every stream")

KEYPOINTS_READABLE = Rule("keypoints.readable", "error", "keypoints (T, 543, 3) float32 in an npz without pickles")
KEYPOINTS_FINITE = Rule("keypoints.finite", "error", "finite numbers")
KEYPOINTS_RANGE = Rule("keypoints.range", "error", "x and y within 10 frame sizes, confidence in 0..1")
KEYPOINTS_SENTINEL = Rule("keypoints.sentinel", "error", "(-1, -1, 0) for a missing point and for no other")
POSE_READABLE = Rule("pose.readable", "error", "pose (T, 99) float32, pose_norm signing_space_v1, in an npz")
POSE_FINITE = Rule("pose.finite", "error", "finite numbers")
POSE_RANGE = Rule("pose.range", "error", "x, y and visibility in 0..1")
POSE_SENTINEL = Rule("pose.sentinel", "error", "(-1, -1, 0) for a missing point and for no other")
TRACKS_READABLE = Rule("tracks.readable", "error", "box, confidence and state of each stream, and times_s, in an npz")
TRACKS_TIMES = Rule("tracks.times", "error", "finite times, none negative, each later than the one before")
TRACKS_RATE = Rule("tracks.rate", "error", "times at the frame rate of the metadata")
TRACKS_STATE = Rule("tracks.state", "error", "states 0 (missing) to 3 (filled)")
TRACKS_BOX = Rule("tracks.box", "error", "a finite square that touches the frame")
TRACKS_SENTINEL = Rule("tracks.sentinel", "error", "box -1 and confidence 0 where missing")
TRACKS_CONFIDENCE = Rule("tracks.confidence", "error", "confidence in 0..1")
TRACKS_AGREE = Rule("tracks.agree", "error", "a crop exactly where the state is not missing")

CROPS_READABLE = Rule("crops.readable", "error", "a readable ZIP archive")
CROPS_LAYOUT = Rule("crops.layout", "error", "members one after another, their directory, and nothing else")
CROPS_STORED = Rule("crops.stored", "error", "stored (uncompressed) members")
CROPS_NAME = Rule("crops.name", "error", "only members named VIDEO_f000000.jpg")
CROPS_ORDER = Rule("crops.order", "error", "each frame once, in rising order")
CROPS_INDEX = Rule("crops.index_range", "error", "frame indices below the number of frames")
CROPS_DECODE = Rule("crops.decodes", "error", "whole JPEGs")
CROPS_SIZE = Rule("crops.size", "error", "square crops of the declared size")

COVERAGE = Rule("coverage.low", "warning", "the stream found in most frames")

FPS = Rule("fps.declared", "error", "the video's own frame rate")
CLIP_INSIDE = Rule("clip.inside_video", "error", "a span inside its video")
CLIP_FRAMES = Rule("clip.frames", "error", "a span that holds a frame")
CLIP_EXTRACTED = Rule("clip.extracted", "error", "a span that was extracted")
CLIP_DECLARED = Rule("clip.declared", "warning", "duration and frame_count of the clip")
CLIP_TIMES = Rule("clip.times", "error", "at most max_untimed_fraction of the rows without exact times")
CLIP_ANY = Rule("clip.any", "error", "at least one clip with exact times")
CLIP_TEXT = Rule("clip.text", "warning", "a text for every clip")
VOCABULARY = Rule("gloss.vocabulary", "error", "glosses that train has")
GLOSS_ABSENT = Rule("gloss.absent", "warning", "a gloss for every clip")
CTC_LENGTH = Rule("gloss.ctc_length", "error", "at least as many frames as CTC needs for the glosses")

LOOSE_MIXED = Rule("loose.mixed", "warning", "archives for all videos, or loose crops for all")
LOOSE_CROPS = Rule("loose.crops", "error", "crops of every video")
LOOSE_SIZE = Rule("loose.size", "error", "one crop size in the whole corpus")
LOOSE_MISSING = Rule("loose.missing", "warning", "all that extraction writes")
LOOSE_LINES = Rule("loose.metadata", "error", "one JSON object per line, each about a video of the corpus")

CONTRACT_RULES = tuple(value for value in list(globals().values()) if isinstance(value, Rule))
# Not one of those: they count for whether a check of a video, which may take hours, is still valid.
PLANNED = Rule("settings.planned", "error", "all videos extracted with the settings that are planned")
_TABLE_RULES = (VIDEO_RULES, TABLE_RULES, ROW_RULES, META_RULES, INDEX_RULES, LEAKAGE_RULES, GLOSS_RULES)
RULES: dict[str, Rule] = {
    rule.id: rule for rules in (*_TABLE_RULES, CONTRACT_RULES, (PLANNED,), TRAINING_RULES) for rule in rules
}
"""Rule id to rule."""
