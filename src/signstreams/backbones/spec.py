"""How a backbone is named on the command line: ``file::path[:architecture]`` or ``timm::name``. No torch here."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from signstreams.backbones.archs import ARCHS
from signstreams.errors import UserError

_LOOKS_LIKE_ARCH = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class BackboneSpec:
    """A parsed name.

    Attributes:
        kind: ``file`` (a checkpoint on disk) or ``timm`` (a pretrained model of timm).
        location: The path, or timm's name.
        arch: Architecture the file must have; None takes what the file says of itself.
    """

    kind: Literal["file", "timm"]
    location: str
    arch: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}::{self.location}" + (f":{self.arch}" if self.arch else "")


def parse_spec(text: str) -> BackboneSpec:
    """Read ``file::work_dirs/dino_face/backbone.pt:dinov2_vits14`` and its like; the path may hold colons and spaces.

    Raises:
        UserError: When the text is none of the forms, or names an unknown architecture.
    """
    kind, separator, rest = text.partition("::")
    if not separator or kind not in ("file", "timm") or not rest:
        raise UserError(f"backbone '{text}': expected file::PATH, file::PATH:ARCHITECTURE or timm::NAME")
    if kind == "timm":
        return BackboneSpec("timm", rest)
    head, colon, tail = rest.rpartition(":")
    if colon and tail in ARCHS:
        return BackboneSpec("file", head, tail)
    if colon and head and _LOOKS_LIKE_ARCH.fullmatch(tail) and not Path(rest).exists():
        near = difflib.get_close_matches(tail, ARCHS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(ARCHS)}"
        raise UserError(f"backbone '{text}': architecture '{tail}' is unknown; {hint}")
    return BackboneSpec("file", rest)
