"""What every section shares: unknown keys, values that never change, settings without effect, kinds of numbers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from signstreams.config import section
from signstreams.config.section import Flag, Section, refuse_without_effect


class Warmup(Section):
    warmup_epochs: int = 10
    """Epochs of growing rate."""
    marks: list[int] = Field(default_factory=lambda: [3])
    """A list of its own for each config."""


def test_an_unknown_key_is_an_error_and_a_value_stays() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        Warmup.model_validate({"warmup_epoch": 3})
    config = Warmup()
    with pytest.raises(ValidationError, match="frozen"):
        config.warmup_epochs = 3  # type: ignore[misc]


def test_a_default_is_checked_like_a_value() -> None:
    class Wrong(Section):
        count: int = Field(0, ge=1)

    with pytest.raises(ValidationError, match="greater_than_equal"):
        Wrong()


def test_the_docstring_below_a_field_is_its_help() -> None:
    assert Warmup.model_fields["warmup_epochs"].description == "Epochs of growing rate."


@pytest.mark.parametrize("names", [(), ("batch-size",), ("--batch-size", "-b")])
def test_a_further_flag_starts_with_two_hyphens(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="flags start with '--'"):
        Flag(*names)


def test_a_changed_setting_without_effect_is_named_and_a_default_is_none() -> None:
    names = ("warmup_epochs", "marks")
    refuse_without_effect(Warmup(), names, "the rate is constant")
    refuse_without_effect(Warmup(warmup_epochs=10, marks=[3]), names, "the rate is constant")
    with pytest.raises(ValueError, match=r"^warmup_epochs has no effect: the rate is constant; leave one of them out$"):
        refuse_without_effect(Warmup(warmup_epochs=3, marks=[]), names, "the rate is constant")
    with pytest.raises(ValueError, match=r"^train\.marks has no effect: none is drawn; leave it out$"):
        refuse_without_effect(Warmup(marks=[]), names, "none is drawn", prefix="train.", next_step="leave it out")


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (section.Prob, [0, 0.5, 1], [-0.1, 1.1]),
        (section.Ratio, [0.1, 1], [0, 1.1]),
        (section.Share, [0, 0.9], [-0.1, 1]),
        (section.Positive, [1e-9, 5], [0, -1]),
        (section.NotNegative, [0, 5], [-1e-9]),
        (section.Range, [[0, 1], [3, 2]], [[1], [1, 2, 3]]),
        (section.Count, [1, 7], [0, 1.5]),
        (section.FileName, ["a.mp4", "ñ b", "-x"], ["", ".hidden", "..", "a/b", "a\\b", "a\nb", "a\x00"]),
    ],
)
def test_a_kind_takes_its_limits_or_leaves_them_out_as_its_name_says(
    kind: Any, taken: list[Any], refused: list[Any]
) -> None:
    adapter = TypeAdapter(kind)
    assert [adapter.validate_python(value) for value in taken] == taken
    for value in refused:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
