"""Base class of every config section, marks of a field (`Flag`, `Fixed`), and the shared kinds of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticOmit


class Fixed:
    """Marks a field as a constant: recorded with each run and part of its fingerprint, but not a setting.

    ``max_tries: Annotated[int, Fixed()] = 10`` has no flag and no place in files, ``--help``, schemas and reference.
    A config that an earlier run saved with that very value still loads.
    """

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> Any:
        raise PydanticOmit


class Section(BaseModel):
    """Unknown keys are errors, instances are immutable, docstrings below fields are their help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)

    @model_validator(mode="after")
    def _fixed_fields_keep_their_value(self) -> Self:
        for name, field in type(self).model_fields.items():
            if is_fixed(field) and getattr(self, name) != field.default:
                raise ValueError(f"{name} = {getattr(self, name)!r}: is fixed at {field.default!r}; leave it out")
        return self


def is_fixed(field: FieldInfo) -> bool:
    """Whether the field is a constant rather than a setting."""
    return any(isinstance(mark, Fixed) for mark in field.metadata)


class Flag:
    """Further flag names of a field: ``batch_size: Annotated[int, Flag("--batch-size")] = 64`` in section ``dataset``.

    The regular flag ``--dataset-batch-size`` remains. ``bare`` is the value of a flag that is given without one.
    """

    def __init__(self, *names: str, bare: str | None = None) -> None:
        if not names or not all(name.startswith("--") for name in names):
            raise ValueError(f"flags start with '--', got {names}")
        self.names, self.bare = names, bare


def refuse_without_effect(
    section: Section, names: Iterable[str], reason: str, *, prefix: str = "", next_step: str = "leave one of them out"
) -> None:
    """For validators: a field among ``names`` that was changed, but has no effect for the ``reason``, is an error.

    ``prefix`` stands before the name in the message, for a validator of an outer section.

    Raises:
        ValueError: Names the first of them.
    """
    fields = type(section).model_fields
    for name in names:
        if getattr(section, name) != fields[name].get_default(call_default_factory=True):
            raise ValueError(f"{prefix}{name} has no effect: {reason}; {next_step}")


# -- Kinds of numbers and names; each range has one name

Prob = Annotated[float, Field(ge=0, le=1)]
"""0 to 1: a probability, a score, or a share that may be nothing or everything."""
Ratio = Annotated[float, Field(gt=0, le=1)]  # 0 to 1, but not 0
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]  # 0 to 1, but not 1
Range = Annotated[list[float], Field(min_length=2, max_length=2)]  # low and high; the section checks their order
Count = Annotated[int, Field(ge=1)]  # 1, 2, 3, ...
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$")]
