"""The choices of MSKA's layers, and what a checkpoint of its authors needs of a config. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from signstreams.errors import UserError

if TYPE_CHECKING:
    from signstreams.integrate.settings import IntegrateConfig

MskaNorm = Literal["layer", "batch"]
MskaLayers = Literal["published", "reduced"]

AUTHORS = "mska::"  # before the path of a checkpoint of the authors


def mska_checkpoint(given: Path) -> Path | None:
    """The file of ``mska::FILE``; None for any other checkpoint."""
    text = str(given)
    return Path(text.removeprefix(AUTHORS)) if text.startswith(AUTHORS) else None


def check_norm(config: IntegrateConfig) -> None:
    """Check that the statistics of BatchNorm are of all clips of a step, and that a checkpoint of the authors fits.

    Sizes are compared when the checkpoint is read.

    Raises:
        ValueError: Names the settings that do not go together.
    """
    passes = config.optim.accumulate_steps
    if config.mska.norm == "batch" and passes > 1:
        raise ValueError(
            f"mska.norm batch: its statistics are of one pass, but optim.accumulate_steps is {passes}; set that to 1,"
            " or mska.norm to layer"
        )
    of_authors = [path for path in config.train.init_checkpoint if mska_checkpoint(path) is not None]
    if not of_authors:
        return
    settings = {
        "model.use_mska true": config.model.use_mska,
        "mska.norm batch": config.mska.norm == "batch",
        "mska.layers published": config.mska.layers == "published",
        "mska.root_relative_hands false": not config.mska.root_relative_hands,
    }
    if needed := [text for text, is_so in settings.items() if not is_so]:
        raise ValueError(
            f"train.init_checkpoint {of_authors[0]}: the authors' network needs {', '.join(needed)}; set this too"
        )


def check_processes(config: IntegrateConfig, count: int) -> None:
    """Check that BatchNorm is not to be computed by several processes, each with statistics of its own clips.

    Raises:
        UserError: It is.
    """
    if config.mska.norm == "batch" and count > 1:
        raise UserError(
            f"mska.norm: batch, whose statistics are of one process: found {count}, expected 1; start a single process,"
            " or set layer"
        )
