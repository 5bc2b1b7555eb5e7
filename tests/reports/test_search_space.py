"""The search space and the stopping rule as a study's file describes them."""

from __future__ import annotations

import pytest

from sadcl.reports.search_space import (
    Choices,
    NumberRange,
    domain_of_text,
    space_domains,
    space_texts,
    stopping_text,
)


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("0.05 to 0.5", NumberRange(0.05, 0.5, is_integer=False, is_log=False)),
        ("1 to 512, whole numbers, logarithmic", NumberRange(1, 512, is_integer=True, is_log=True)),
        (
            "4 to 64, whole numbers, where c is fifo",
            NumberRange(4, 64, is_integer=True, is_log=False),
        ),
        ("1e-05 to 0.1, logarithmic", NumberRange(1e-5, 0.1, is_integer=False, is_log=True)),
        ("one of 'fifo', (1, 2)", Choices()),
        ("something else", None),
    ],
)
def test_a_domain_is_read_from_its_words(text, domain):
    assert domain_of_text(text) == domain


def test_a_description_may_lack_both():
    assert space_domains({}) == space_texts({"space": None}) == {}
    assert stopping_text({}) == stopping_text({"stopping": None}) == ""
    description = {"space": {"a": "0 to 1", "b": "?"}, "stopping": "ASHA from epoch 2, reduction 3"}
    assert list(space_domains(description)) == ["a"]
    assert space_texts(description) == {"a": "0 to 1", "b": "?"}
    assert stopping_text(description) == "ASHA from epoch 2, reduction 3"
