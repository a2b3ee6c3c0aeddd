"""signstreams: from raw sign-language video to a translation model with self-supervised backbones.

``import signstreams as ss`` costs nothing: a name is imported from its module when it is first used (docs/python.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what editors and mypy see; `_HOMES` says the same to Python
    from signstreams.api import Crops as Crops
    from signstreams.api import ExtractedCorpus as ExtractedCorpus
    from signstreams.api import ExtractedVideo as ExtractedVideo
    from signstreams.api import embed as embed
    from signstreams.api import evaluate_backbone as evaluate_backbone
    from signstreams.api import extract_video as extract_video
    from signstreams.api import load_backbone as load_backbone
    from signstreams.api import load_translator as load_translator
    from signstreams.api import open_corpus as open_corpus
    from signstreams.api import read_crops as read_crops
    from signstreams.api import translate_video as translate_video
    from signstreams.backbones.weights import Backbone as Backbone
    from signstreams.corpus.clips import Clip as Clip
    from signstreams.errors import UserError as UserError
    from signstreams.translate.run import Sentence as Sentence
    from signstreams.translate.run import Translation as Translation
    from signstreams.translate.run import Translator as Translator

_HOMES = {
    "Backbone": "backbones.weights",
    "Clip": "corpus.clips",
    "Crops": "api",
    "ExtractedCorpus": "api",
    "ExtractedVideo": "api",
    "Sentence": "translate.run",
    "Translation": "translate.run",
    "Translator": "translate.run",
    "UserError": "errors",
    "embed": "api",
    "evaluate_backbone": "api",
    "extract_video": "api",
    "load_backbone": "api",
    "load_translator": "api",
    "open_corpus": "api",
    "read_crops": "api",
    "translate_video": "api",
}
"""Public name to the module that has it."""

__all__ = list(_HOMES)

if not TYPE_CHECKING:  # to mypy it would say that there is every name

    def __getattr__(name: str) -> Any:
        """Import a public name from its module; PEP 562."""
        if name not in _HOMES:
            raise AttributeError(f"module 'signstreams' has no attribute '{name}'")
        from importlib import import_module

        value = getattr(import_module(f"signstreams.{_HOMES[name]}"), name)
        globals()[name] = value  # the next use finds it at once
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
