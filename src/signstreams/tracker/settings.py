"""Config of getting the tracker's models."""

from __future__ import annotations

from pathlib import Path

from signstreams.config.section import Section


class FetchModelsConfig(Section):
    """Get the models that find body, hands and face: 19 MB, of a MediaPipe release, checked by their hashes."""

    folder: Path | None = None
    """Where to put them; none: signstreams/models in the user's cache, or SIGNSTREAMS_MODELS of the environment."""
    wheel: Path | None = None
    """The wheel of mediapipe 0.10.21, for any platform, if there is no network. None: pip downloads it."""
