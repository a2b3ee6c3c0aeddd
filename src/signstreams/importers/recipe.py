"""The config.yaml of an imported corpus: settings that follow from the lengths and numbers of its clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from signstreams.corpus.gloss import Gloss, GlossVocabulary
from signstreams.importers.draft import Checked, Draft
from signstreams.importers.settings import ImportConfig
from signstreams.integrate.settings import FEW_CLIPS, DataConfig, few_clips

FILES_FPS = 25.0  # of video files, which may differ: all are sampled at this rate
SMALL_PICTURE_PX = 400  # height below which a hand has less than about 60 px
SMALL_RECIPE = "config/pretrain/small.toml"
FEW_CROPS = 20_000  # below it the recipe of pretraining for a laptop; the others are for a GPU
MANY_VIDEOS, VIDEOS_PER_JOB = 1_000, 100  # from so many videos on, jobs of so many (docs/scaling.md)
MOST_FRAMES = 1024  # of a clip after the stride: memory grows with its square; longer ones get a larger stride
LEAST_TOKENS = 40
CTC_SHARE = 0.1  # the contract's max_unknown_gloss_fraction


@dataclass
class Recipe:
    """Content of config.yaml, as a tree, and why, as lines for the report."""

    tree: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def make_recipe(draft: Draft, checked: Checked, splits: Mapping[str, Sequence[str]], config: ImportConfig) -> Recipe:
    """Settings that let the workflow run on these clips as they are."""
    frames = all(video.is_folder for video in checked.videos.values())
    rate_hz = draft.frames_fps if frames else FILES_FPS
    has_spans = any(not item.clip.is_whole_video for item in checked.taken)
    folders = [str(folder) for folder in checked.folders]
    corpus: dict[str, Any] = {"root": str(config.root), "videos": folders[0] if len(folders) == 1 else folders}
    if config.allow_absent_videos:
        corpus["allow_absent_videos"] = True
    recipe = Recipe({"corpus": corpus, "work_dir": f"work_dirs/{config.root.name}"})
    extract: dict[str, Any] = {} if frames else {"fps": FILES_FPS}
    if any(video.is_folder for video in checked.videos.values()):
        extract["frames_fps"] = draft.frames_fps
    if has_spans:
        extract["spans_only"] = True
        recipe.notes.append("spans_only: of each video, only its clips and half a second around them are extracted")
    if checked.height_px is not None and checked.height_px < SMALL_PICTURE_PX:
        extract["crop_px"] = 112
        recipe.notes.append(f"crop_px 112: pictures of {checked.height_px} px hold no larger hands")
    extract |= draft.settings.get("extract", {})
    recipe.tree["extract"] = {"set": extract}
    if len(checked.videos) >= MANY_VIDEOS:
        recipe.tree["extract"]["videos_per_job"] = VIDEOS_PER_JOB
        recipe.notes.append(f"videos_per_job {VIDEOS_PER_JOB}: {len(checked.videos):,} videos would be as many jobs")
    num_frames = round(checked.seconds * rate_hz)
    if num_frames < FEW_CROPS:
        recipe.tree["pretrain"] = {"config": SMALL_RECIPE}
    else:
        recipe.tree["pretrain"] = {"config": "config/pretrain/{stream}.toml"}
    recipe.notes.append(f"pretraining by {recipe.tree['pretrain']['config']}: about {num_frames:,} frames")
    _add_translation(recipe, draft, checked, splits, rate_hz)
    return recipe


def _add_translation(
    recipe: Recipe, draft: Draft, checked: Checked, splits: Mapping[str, Sequence[str]], rate_hz: float
) -> None:
    present = {item.clip.clip_id for item in checked.present}
    num_train = len(present & set(splits["train"]))
    file = "config/integrate/demo.yml" if num_train < FEW_CLIPS else "config/integrate/corpus.yml"
    settings: dict[str, Any] = {}
    recipe.notes.append(f"translation by {file}: {num_train:,} clips in train")
    if (few := few_clips(num_train)) is not None:
        recipe.notes.append(few)
    data = DataConfig()
    longest_s = max(checked.lengths_s.values(), default=0.0)
    longest = math.ceil(longest_s * rate_hz / data.frame_stride) + 1
    if longest > data.max_frames:
        settings["data.max_frames"] = min(MOST_FRAMES, 64 * math.ceil(longest / 64))
        recipe.notes.append(f"data.max_frames: the longest clip has {longest_s:.1f} s")
    if longest > MOST_FRAMES:
        num_long = sum(
            math.ceil(length_s * rate_hz / data.frame_stride) + 1 > MOST_FRAMES
            for length_s in checked.lengths_s.values()
        )
        settings["data.long_clips"] = "stride"
        recipe.notes.append(
            f"data.long_clips stride: {num_long:,} clips have more than {MOST_FRAMES} frames and are read more sparsely"
        )
    num_bytes = max((len(item.clip.text.encode()) for item in checked.taken), default=0)
    settings["decoder.max_tokens"] = max(LEAST_TOKENS, 8 * math.ceil((num_bytes + 2) / 8))
    recipe.notes.append(f"decoder.max_tokens: a text never has more tokens than bytes; the longest has {num_bytes:,}")
    _add_glosses(recipe, settings, checked, splits)
    settings |= draft.settings.get("integrate", {})
    recipe.tree["integrate"] = {"config": file, "set": settings}


def _add_glosses(
    recipe: Recipe, settings: dict[str, Any], checked: Checked, splits: Mapping[str, Sequence[str]]
) -> None:
    """Glosses of val and test that train lacks: counted as errors of recognition, rather than a reason to stop."""
    glosses = {
        item.clip.clip_id: Gloss(item.clip.clip_id, " ".join(item.gloss), item.gloss, 0)
        for item in checked.taken
        if item.gloss
    }
    vocabulary = GlossVocabulary.build(glosses, splits["train"])
    held_out = [
        name
        for split in ("val", "test")
        for clip_id in splits[split]
        if clip_id in glosses
        for name in glosses[clip_id].labels
    ]
    unknown = vocabulary.unknown(held_out)
    if not unknown or len(vocabulary) == 1:
        return
    settings["data.unknown_gloss"] = "count"
    share = len(unknown) / len(held_out)
    recipe.notes.append(
        f"data.unknown_gloss count: {len(unknown):,} of {len(held_out):,} glosses of val and test are not in train"
    )
    if share > CTC_SHARE:
        recipe.tree["contract"] = {"set": {"max_unknown_gloss_fraction": math.ceil(share * 100) / 100}}
        recipe.notes.append(f"contract max_unknown_gloss_fraction: {share:.0%} of them; the contract warns and goes on")


def config_text(recipe: Recipe, draft: Draft, config: ImportConfig, language: str | None) -> str:
    """The file, with the command that runs it."""
    import yaml

    path = config.root / "config.yaml"
    head = [
        f"# {draft.name}, imported by `signstreams import`; {config.root / 'import.json'} says what was taken and why.",
        f"# snakemake --cores 8 all --configfile {path}",
        f"# Language of the texts: {language or 'not stated'}.",
    ]
    if recipe.tree["pretrain"]["config"] == SMALL_RECIPE:
        head.append(
            "# Pretraining takes 20 CPU minutes per stream; for a first look add `set: {epochs: 10}` to pretrain."
        )
    code = f", decoder.target_language: {language}" if language and "_" in language else ""
    head += [
        "# The decoder is built here and knows no language; a pretrained one is named in integrate.set, for example",
        f"# decoder.model: facebook/mbart-large-cc25{code}, decoder.offline: false.",
    ]
    body = yaml.safe_dump(recipe.tree, sort_keys=False, allow_unicode=True, width=120)
    return "\n".join(head) + "\n" + body
