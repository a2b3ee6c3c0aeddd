"""Cards of the release: its README with how to load and to translate, and model cards with what was measured since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signstreams.engine.model_card import LIBRARY, Result, backbone_data, model_index, read_card, write_card
from signstreams.engine.run_folder import versions
from signstreams.files import read_json, write_text
from signstreams.formats.layout import CURVES, CorpusLayout, RunLayout
from signstreams.pages.render import percent, rounded
from signstreams.progress import duration
from signstreams.publish.figures import (
    contract_figures,
    judged,
    pretraining_figures,
    scores_text,
    sequence_figures,
    sequence_text,
    stage_figures,
    starts_from_sequence,
    translation_figures,
)
from signstreams.publish.settings import ReleaseConfig
from signstreams.streams import BY_NAME

SUMS = "SHA256SUMS"
TIMM = "timm::"


def complete_card(card: Path, stream: str, runs: RunLayout, config: ReleaseConfig) -> None:
    """Put what was measured since its pretraining, and what the owner says, into a card; another's stays as it is."""
    figures = pretraining_figures(runs, stream)
    if figures is None or not card.is_file():
        return
    data, body = read_card(card.read_text(encoding="utf-8"))
    corpus, judge = config.root.name, figures.get("judge", {})
    labelled = Path(judge.get("data", corpus)).name  # which may be another set; its place says nothing elsewhere
    backbone = next((row for row in judge.get("rows", []) if row["kind"] == "backbone"), None)
    results = [
        Result(
            "image-classification",
            "k-NN on the features of crops, by known label",
            f"{labelled}: {stream}",
            about["title"],
            [("accuracy", f"{judge['k']}-NN accuracy", round(backbone["scores"][split]["knn"]["value"], 4))],
        )
        for split, about in judge.get("splits", {}).items()
        if backbone is not None and "knn" in backbone["scores"][split]
    ]
    dataset = _dataset(config) if labelled == corpus else labelled
    data = (data or backbone_data(stream)) | model_index(f"{corpus} {stream}", results, dataset)
    write_text(card, write_card(data, body, config.card()))


def _dataset(config: ReleaseConfig) -> str:
    return config.datasets[0] if config.datasets else config.root.name


def _front_matter(runs: RunLayout, config: ReleaseConfig, scores: Mapping[str, Any] | None) -> dict[str, Any]:
    tags = [LIBRARY, "sign-language", "self-supervised", "vision-transformer"]
    tree: dict[str, Any] = {"library_name": LIBRARY, "tags": tags}
    if scores is None:
        return tree
    if (language := _text_language(runs)) is not None:
        tree["language"] = [language]
    names = (("bleu", "BLEU-4", "bleu_4"), ("chrf", "chrF", "chrf"), ("rouge", "ROUGE-L", "rouge_l"))
    metrics = [(kind, name, round(scores[key], 2)) for kind, name, key in names if key in scores]
    if "gloss" in scores:
        metrics.append(("wer", "gloss WER", round(scores["gloss"]["wer"], 2)))
    corpus = config.root.name
    result = Result("translation", "sign language video to text", corpus, scores["split"], metrics)
    tags.append("sign-language-translation")
    return tree | model_index(f"{corpus} multistream v9", [result], _dataset(config))


def _text_language(runs: RunLayout) -> str | None:
    """Language of the texts as the settings of a language model name it, ``es_XX``; None where they do not."""
    config = runs.training_file("config")
    name = read_json(config).get("decoder", {}).get("target_language") if config.is_file() else None
    code = (name or "").partition("_")[0]
    return code if len(code) in (2, 3) and code.islower() else None


def release_card(
    config: ReleaseConfig, backbones: Sequence[str], needed: Mapping[str, str] | None, *, has_boundaries: bool
) -> str:
    """README.md of the bundle.

    Args:
        config: Of the release.
        backbones: Streams whose backbones are in it.
        needed: Stream of the translation model to the digest of its backbone or a ``timm::`` spec; None: no model.
        has_boundaries: Whether a boundary model is in it.
    """
    runs = RunLayout(config.work_dir)
    scores = translation_figures(runs) if needed is not None else None
    parts = [
        "# A run of signstreams",
        *_figures(config, runs, backbones, scores, is_translated=needed is not None),
        _folders(runs, is_translated=needed is not None, has_boundaries=has_boundaries),
        *_use(backbones, needed),
        "## Curves",
        *_curves(runs, backbones),
        "Pictures of people are left out on purpose. Read the model cards too, and release only what the signers agreed"
        " to.",
    ]
    return write_card(_front_matter(runs, config, scores), "\n\n".join(parts), config.card())


def _figures(
    config: ReleaseConfig,
    runs: RunLayout,
    backbones: Sequence[str],
    scores: Mapping[str, Any] | None,
    *,
    is_translated: bool,
) -> list[str]:
    parts = []
    if (corpus := contract_figures(CorpusLayout(config.root))) is not None:
        parts.append(
            f"Trained on {corpus['num_videos']:,} videos, {duration(corpus['duration_s'])},"
            f" {corpus['num_frames']:,} frames, {corpus['num_clips']:,} clips with text."
        )
    table = [
        "| stream | architecture | crops | steps | loss | ln K | RankMe | k-NN | first weights |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
        *(_backbone_line(stream, pretraining_figures(runs, stream)) for stream in backbones),
    ]
    parts += [
        "\n".join(table),
        "Loss: ln K is that of knowing nothing. RankMe: directions that the features use. k-NN: how often the nearest"
        " crops of other videos show the same handshape or mouth, where the truth is known; beside it the same network"
        " before its training. `judge.csv` in the folder of a backbone has more.",
    ]
    if (sequence := sequence_figures(runs)) is not None:
        use = " The translation model starts from it." if is_translated and starts_from_sequence(runs) else ""
        parts.append(f"Sequence pretraining, without texts: {sequence_text(sequence)} on val.{use}")
    if is_translated and (stages := stage_figures(runs)):
        parts.append(f"Started from {'; '.join(f'{stage}: {text}' for stage, text in stages.items())}.")
    if scores is not None:
        clips = f"{scores['num_clips']} clips of the {scores['split']} split"
        text = f"Translation, {clips}: {scores_text(scores)}."
        if blank := scores.get("baselines", {}).get("blank_video"):
            text += f"\nWith blank video, what the text model alone can say: BLEU-4 {blank['bleu_4']:.1f}."
        parts.append(text)
    return parts


def _folders(runs: RunLayout, *, is_translated: bool, has_boundaries: bool) -> str:
    rows = {"`backbones/<stream>/`": "weights (`.pt`, `.safetensors`), model card, settings, metrics (extract), curves"}
    if sequence_figures(runs) is not None:
        rows["`sequence/`"] = "first weights of a translation model's encoder, settings, curves"
    if is_translated:
        rows["`translation/`"] = "model, tokenizer, settings, scores, curves" + has_boundaries * ", boundary model"
        if stage_figures(runs):
            rows["`stages/<stage>/`"] = "settings, metrics (extract), curves of what the model started from"
    rows["`environment/`"] = "versions and lock files"
    rows[f"`workflow.json`, `corpus.json`, `{SUMS}`"] = "settings of the workflow, size of the corpus, checksums"
    return "\n".join(["| folder | holds |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows.items())])


def _use(backbones: Sequence[str], needed: Mapping[str, str] | None) -> list[str]:
    """Pieces of code with what they need: a backbone, and the translation model where there is one."""
    stream = backbones[0]
    backbone = f"""\
import numpy as np
import signstreams as ss

backbone = ss.load_backbone("backbones/{stream}")
crops = np.zeros((2, 224, 224, 3), np.uint8)  # yours: square, red, green, blue; of any size
features = ss.embed(backbone, crops, stream="{stream}")  # (2, D), float32"""
    parts = [
        "## Use",
        f"All of it needs signstreams {versions()['signstreams']} (`pip install '.[extract]'` in its checkout) and runs"
        f" in this folder, whose files `sha256sum -c {SUMS}` checks.",
        f"Features of crops, with `backbones/{stream}/backbone.pt`:",
        _fenced("python", backbone),
    ]
    if needed is None:
        return parts
    absent = {s: digest for s, digest in needed.items() if s not in backbones and not digest.startswith(TIMM)}
    words = [f" {BY_NAME[stream].backbone_flag} file::PATH" for stream in absent]
    settings = [f', {BY_NAME[stream].backbone_key}="file::PATH"' for stream in absent]
    if any(digest.startswith(TIMM) for digest in needed.values()):
        words.append(" --model-download")
        settings.append(", download=True")
    translator = f"""\
import signstreams as ss

translator = ss.load_translator("."{"".join(settings)})
translation = ss.translate_video(translator, "video.mp4")
print(translation.text)"""
    return [
        *parts,
        "Text of `video.mp4`, a video of a person who signs, with `translation/` and `backbones/`. It needs the models"
        " that find body, hands and face: `signstreams models` fetches them, once.",
        *(
            f"Its backbone of {stream} is not in this folder (SHA-256 {digest}): put its file for `PATH`."
            for stream, digest in absent.items()
        ),
        _fenced("bash", f"signstreams translate video.mp4 --checkpoint .{''.join(words)}"),
        _fenced("python", translator),
    ]


def _fenced(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def _curves(runs: RunLayout, backbones: Sequence[str]) -> list[str]:
    """Pictures of the bundle, by their places in it."""
    places = {f"backbones/{stream}": runs.pretraining(stream) for stream in backbones}
    places |= {"sequence": runs.sequence}
    places |= {f"stages/{stage}": runs.stage(stage) for stage in stage_figures(runs)}
    places["translation"] = runs.training
    return [f"![{place}]({place}/{CURVES})" for place, folder in places.items() if (folder / CURVES).is_file()]


def _backbone_line(stream: str, figures: Mapping[str, Any] | None) -> str:
    if figures is None:  # weights alone, as of another's run
        return f"| {stream} |{' – |' * 8}"
    last, params = figures["last"], figures["params"]
    knn = judged(figures)
    values = [
        params["architecture"],
        f"{params['data']['train_crops']:,}",
        f"{last['step']:,}",
        rounded(last.get("train/loss_dino")),
        rounded(params["ln_num_prototypes"]),
        rounded(last.get("probe/rankme")),
        *(percent(knn.get(name)) for name in ("backbone", "first weights")),
    ]
    return f"| {stream} | {' | '.join(values)} |"
