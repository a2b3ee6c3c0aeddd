"""Base class of every config section, and the extra flag names a field may carry."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Unknown keys are errors, values never change, docstrings under fields become their help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class Flag:
    """Further flag names of a field: ``batch_size: Annotated[int, Flag("--batch-size")] = 64`` in section ``dataset``.

    The regular flag ``--dataset-batch-size`` remains.
    """

    def __init__(self, *names: str) -> None:
        if not names or not all(name.startswith("--") for name in names):
            raise ValueError(f"flags start with '--', got {names}")
        self.names = names
