"""Settings of the translation of new videos. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from signstreams.config.section import Flag, NotNegative, Positive
from signstreams.corpus.numbers import all_have_decimal_commas, parse_time_s
from signstreams.integrate.settings import TrainedModelSection

FOUND, WHOLE = "found", "whole"
OUTPUT_SUFFIXES = (".srt", ".vtt", ".eaf", ".json", ".csv", ".html")
VIDEO_FIELD = "{video}"


class TranslateConfig(TrainedModelSection):
    """Translate videos of any length with a trained model, with the extraction, backbones and frame rate of its
    training."""

    videos: list[Path] = Field(min_length=1)
    """Videos (files or folders of frames), or folders of videos."""
    output: list[Path] = []
    """Files to write, by their ending: .srt, .vtt, .eaf (ELAN), .json, .csv, .html (a page with the video). {video} in
    a name stands for the video's id; several videos need it."""
    segments: str | None = None
    """Where the sentences are: a table, .srt, .vtt or .eaf file with their times; found: from the hands' rests; whole:
    the video is one sentence. None: whole for a video as long as a clip of training without --output, else found."""
    tier: str | None = None
    """Tier of the ELAN file in --segments that holds the sentences. None: the only one with times of its own."""
    boundary_model: Path | None = None
    """Find the sentences by this trained boundary.pt (signstreams boundaries), not by the hands' rests."""
    pause_s: Annotated[Positive | None, Flag("--pause")] = None
    """Shortest rest between two sentences that are found, in seconds. None: 0.2; with a boundary model no minimum."""
    start_s: Annotated[NotNegative | None, Flag("--start")] = None
    """Start of the part to translate, in seconds."""
    end_s: Annotated[NotNegative | None, Flag("--end")] = None
    """End of the part to translate, in seconds."""
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    """The signer's place, x0 y0 x1 y1 in px, as in meta.csv. None: of several people, the one whose hands move most."""
    points: Path | None = None
    """Folder of points detected by another tool, for a model whose corpus was extracted from such points."""
    as_json: Annotated[bool, Flag("--json")] = False
    """Print a JSON object per video instead of its text."""

    @model_validator(mode="before")
    @classmethod
    def _decimal_commas(cls, tree: Any) -> Any:
        """Read ``--end 0,9`` or ``--end 1:05.500`` as meta.csv is read: a comma where no start or end has thousands."""
        names = [name for name in ("start_s", "end_s") if isinstance(tree, dict) and isinstance(tree.get(name), str)]
        comma = all_have_decimal_commas(tree[name] for name in names)
        read = {name: parse_time_s(tree[name], comma=comma) for name in names}
        return {**tree, **{name: value for name, value in read.items() if value is not None}} if names else tree

    @model_validator(mode="after")
    def _span_and_box_have_a_size(self) -> Self:
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(
                f"end_s ({self.end_s:g}) is not after start_s ({self.start_s:g}); give the later one as the end"
            )
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            shown = " ".join(f"{value:g}" for value in self.box)
            raise ValueError(f"box ({shown}) has no size, expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
        return self

    @model_validator(mode="after")
    def _outputs_are_known(self) -> Self:
        for path in self.output:
            if path.suffix.lower() not in OUTPUT_SUFFIXES:
                raise ValueError(
                    f"output {path}: the ending is '{path.suffix}', expected one of {', '.join(OUTPUT_SUFFIXES)}"
                )
        return self

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        file = self.segments_file
        if file is None and self.tier is not None:
            raise ValueError("tier has no effect: --segments names no ELAN file; leave it out")
        if file is not None or self.segments == WHOLE:
            for name in ("pause_s", "boundary_model"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} has no effect: sentences are found with --segments found; leave it out")
        return self

    @property
    def segments_file(self) -> Path | None:
        """File that gives the sentences; None where none does."""
        return None if self.segments in (None, FOUND, WHOLE) else Path(str(self.segments))

    @property
    def finds_sentences(self) -> bool:
        """Whether settings ask for sentences to be found, whatever the video's length."""
        asks = self.pause_s is not None or self.boundary_model is not None or bool(self.output)
        return self.segments == FOUND or (self.segments is None and asks)
