"""Front matter as the hub's own library reads it, and what a card says of licences that nobody gave."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from signstreams.engine.model_card import Result, backbone_data, model_index, read_card, write_card
from signstreams.engine.settings import CardConfig

hub = pytest.importorskip("huggingface_hub")  # comes with transformers


def hub_reads(card: str) -> Any:
    """The card's data by the hub's library; what it writes of them is what was there."""
    found = hub.ModelCard(card, ignore_metadata_errors=False)
    assert found.data.to_dict() == read_card(card)[0]
    return found.data


def test_the_hub_reads_what_was_measured() -> None:
    results = [
        Result(
            "translation", "Sign language translation", "año", "test", [("bleu", "BLEU-4", 5.9), ("wer", "WER", 56.5)]
        ),
        Result("image-classification", "Handshape", "año", "other videos", []),
    ]
    data = hub_reads(
        write_card(backbone_data("face", ["mine"]) | model_index("m", results, "own/data"), "# A", CardConfig())
    )
    assert data.library_name == "signstreams" and data.metrics == ["bleu", "wer"]
    assert data.tags == ["signstreams", "sign-language", "self-supervised", "vision-transformer", "face", "mine"]
    first, second = data.eval_results
    assert (first.dataset_type, first.dataset_name, first.dataset_split) == ("own/data", "año", "test")
    assert (first.metric_type, first.metric_value, second.metric_name) == ("bleu", 5.9, "WER")
    assert model_index("m", results[1:], "own/data") == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ("other", "none-given", None)),
        ("CC BY-NC 4.0", ("cc-by-nc-4.0", None, None)),
        ("apache-2.0", ("apache-2.0", None, None)),
        ("LSA-T terms, https://example.org/terms.", ("other", "lsa-t-terms", "https://example.org/terms")),
        ("¿?", ("other", "custom", None)),
    ],
)
def test_the_licence_is_one_that_the_hub_knows_or_other(given: str | None, expected: tuple[str | None, ...]) -> None:
    data = hub_reads(write_card({}, "# A", CardConfig(weights_license=given)))
    assert (data.license, data.license_name, data.license_link) == expected


def test_nothing_is_invented_and_what_is_given_is_said() -> None:
    card = write_card({}, "# A\n\nText.", CardConfig())
    assert "Licence of the weights: **none was given.** Without one, nobody but their owner may use" in card
    assert "footage: none was given" in card and "agreed to: nothing was noted; ask them" in card
    assert not {"language", "datasets"} & set(read_card(card)[0])
    about = CardConfig(
        weights_license="mit",
        footage_license="Only <b>here</b>.",
        consent_note="Signed\nforms.",
        languages=["aed", "es"],
    )
    card = write_card({}, "# A", about)
    assert "- Licence of the weights: mit.\n- Licence of the footage: Only &lt;b&gt;here&lt;/b&gt;.\n" in card
    assert "agreed to: Signed forms.\n" in card and "none was given" not in card
    assert hub_reads(card).language == ["aed", "es"]


def test_a_release_writes_the_section_of_a_card_anew_and_leaves_the_rest() -> None:
    old = write_card(
        {"tags": ["a"], "license_link": "https://example.org"}, "# A\n\nText.\n\n## Use\n\nB", CardConfig()
    )
    data, body = read_card(old)
    assert data == {"license": "other", "license_name": "none-given", "tags": ["a"]}
    new = write_card(data, body + "\n## Later\n\nC\n", CardConfig(weights_license="mit"))
    assert read_card(new)[0] == {"license": "mit", "tags": ["a"]}
    assert new.count("## Licence and consent") == 1 and "Licence of the weights: mit." in new
    assert new.endswith("## Later\n\nC\n") and "## Use\n\nB\n\n## Licence" in new
    assert read_card("---\n- no\n---\n\nText")[0] == {} and read_card("---\n{\n---\n")[0] == {}


def test_codes_and_names_that_the_hub_would_refuse_are_refused() -> None:
    for wrong in ({"languages": ["Spanish"]}, {"datasets": ["a b"]}, {"datasets": ["a/b/c"]}, {"weights_license": ""}):
        with pytest.raises(ValidationError):
            CardConfig.model_validate(wrong)
