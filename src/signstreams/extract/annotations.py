"""What meta.csv says about a video that extraction heeds: where the signer is, and which spans are annotated."""

from __future__ import annotations

from typing import Any, NamedTuple


class VideoAnnotations(NamedTuple):
    """Of one video.

    Attributes:
        spans_s: Spans to extract, padded, merged, in order of time, seconds from the start; None for the whole video.
        box: Where the signer is, x0, y0, x1, y1 in px of the upright frame; None when nothing says so.
    """

    spans_s: tuple[tuple[float, float], ...] | None = None
    box: tuple[float, float, float, float] | None = None

    def settings(self) -> dict[str, Any]:
        """What shapes the results, as plain data."""
        return {"spans_s": None if self.spans_s is None else [list(span) for span in self.spans_s], "box": self.box}


NOT_ANNOTATED = VideoAnnotations()
