"""A clip: a span of a video, with its text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clip:
    """One row of meta.csv, or a whole video of a corpus without one.

    Attributes:
        clip_id: Unique in the corpus; safe as a file name.
        video_id: Video it lies in.
        text: As written, blanks included; empty when there is none.
        start_s: First moment of the span; None (with ``end_s``) for the whole video.
        end_s: End of the span: it covers frames with ``start_s <= time < end_s``.
        signer: Who signs, when known.
        split: ``train``, ``val`` or ``test`` when meta.csv says so.
        box: Where the signer is: x0, y0, x1, y1 in px of the upright source frame.
        duration_s: Declared length of the clip; None when absent, mangled or at odds with the span.
        fps: Declared frames a second of the video.
        frame_count: Declared number of frames of the clip.
        row: Row in meta.csv (the header is row 1); None when there is no meta.csv.
    """

    clip_id: str
    video_id: str
    text: str = ""
    start_s: float | None = None
    end_s: float | None = None
    signer: str | None = None
    split: str | None = None
    box: tuple[float, float, float, float] | None = None
    duration_s: float | None = None
    fps: float | None = None
    frame_count: int | None = None
    row: int | None = None

    @property
    def is_whole_video(self) -> bool:
        """Whether it has no span."""
        return self.start_s is None
