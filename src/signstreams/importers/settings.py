"""Config of `signstreams import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import model_validator

from signstreams.config.section import Flag, Positive, Section, refuse_without_effect
from signstreams.corpus.numbers import Unit

LayoutName = Literal[
    "phoenix14t", "how2sign", "csl-daily", "openasl", "youtube-asl", "lsa-t", "elan", "subtitles", "table"
]
MEANINGS = ("clip_id", "video", "text", "start", "end", "gloss", "signer", "split", "box", "fps")
"""What a column of a table can be taken for."""


class ImportConfig(Section):
    """Bring a corpus in: writes meta.csv, annotations/gloss.csv, index/*.csv and a config.yaml; copies no video.

    signstreams import --from phoenix14t --source /data/PHOENIX-2014-T --root data/phoenix14t
    snakemake --cores 8 all --configfile data/phoenix14t/config.yaml

    ROOT/import.json says what was taken, what not and why. A second call changes nothing; files that were changed since
    are never replaced. One page for each corpus: docs/corpora.md.
    """

    layout: Annotated[LayoutName, Flag("--from")]
    """Which layout the source has."""
    source: Path
    """Folder of the corpus as it was unpacked; for a table, the file itself or the folder that holds it."""
    root: Path
    """Folder to write to, such as data/phoenix14t; paths in its config.yaml count from where you call this."""
    videos: list[Path] = []
    """Folders with the videos, searched in order, sub-folders included. None: those below the source."""
    language: str | None = None
    """Language of the texts, such as de or es, for the report and the advice in config.yaml. None: that of the
    corpus."""
    allow_absent_videos: bool = False
    """Leave out and count clips whose video is absent, as in a partly downloaded corpus; otherwise they are errors."""
    strict: bool = False
    """Make it an error if anything would be left out or is doubtful."""
    redraw_splits: bool = False
    """Ignore the corpus's own splits and draw new ones, which keep the clips of a video and, where known, of a signer
    together."""
    columns: Annotated[list[str], Flag("--column")] = []
    """For tables: what a column is, as in text=SENTENCE, for clip_id, video, text, start, end, gloss, signer, split,
    box, fps; only needed for columns that are not recognised by name."""
    sheet: str | None = None
    """For Excel workbooks: the sheet."""
    unit: Unit | None = None
    """For tables: unit of the times, where the columns' names do not say it (start_ms, end_frame). None: seconds."""
    fps: Positive | None = None
    """For tables with times in frames, and for folders of frames: frames per second. None: the column fps; 25."""
    text_tiers: list[str] = []
    """For ELAN files: tiers of sentences, by name or type; * stands for any letters. None: those of known corpora."""
    gloss_tiers: list[str] = []
    """For ELAN files: tiers of glosses of both hands, named likewise."""
    captions: str | None = None
    """For captions in several languages: the one to use, as in VIDEO.en.vtt."""

    @model_validator(mode="after")
    def _columns_are_pairs(self) -> Self:
        meanings = [pair.partition("=")[0] for pair in self.columns]
        for pair, meaning in zip(self.columns, meanings, strict=True):
            if "=" not in pair or meaning not in MEANINGS:
                raise ValueError(f"columns: '{pair}' names none of {', '.join(MEANINGS)}; write text=SENTENCE")
        if twice := [meaning for meaning in MEANINGS if meanings.count(meaning) > 1]:
            raise ValueError(f"columns: {twice[0]} is named twice; name it once")
        return self

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        if self.layout != "table":
            refuse_without_effect(self, ("columns", "sheet", "unit"), f"--from {self.layout} reads no free table")
        if self.layout not in ("table", "csl-daily"):
            refuse_without_effect(self, ("fps",), f"the times or frame rate of --from {self.layout} are known")
        if self.layout != "elan":
            refuse_without_effect(self, ("text_tiers", "gloss_tiers"), f"--from {self.layout} reads no ELAN files")
        if self.layout not in ("subtitles", "youtube-asl"):
            refuse_without_effect(self, ("captions",), f"--from {self.layout} reads no captions")
        return self

    def column_of(self) -> dict[str, str]:
        """Meaning to column, from ``columns``."""
        return {meaning: column for meaning, _, column in (pair.partition("=") for pair in self.columns)}
