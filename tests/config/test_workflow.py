"""The workflow's own config: what no job should have to find out."""

from __future__ import annotations

from typing import Any

import pytest

from signstreams.config.load import check
from signstreams.config.workflow import WorkflowConfig
from signstreams.errors import UserError


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"pretrain": {"gpus": -1}}, "pretrain.gpus = -1 (config): input should be greater than or equal to 0"),
        ({"integrate": {"gpus": -2}}, "integrate.gpus = -2 (config): input should be greater than or equal to 0"),
        (
            {"corpus": {"val_fraction": 0.5, "test_fraction": 0.5}},
            "corpus (config): val_fraction (0.5) and test_fraction (0.5) leave nothing for train",
        ),
    ],
)
def test_what_no_job_could_use_is_refused(tree: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        check(WorkflowConfig, tree, "config")
    assert expected in caught.value.problems


def test_the_numbers_of_gpus_that_the_docs_name_are_taken() -> None:
    assert [check(WorkflowConfig, {"pretrain": {"gpus": n}}, "x").pretrain.gpus for n in (0, 4, "auto")] == [
        0,
        4,
        "auto",
    ]
