"""How a study's file describes its search space and its stopping rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NumberRange:
    """A field that takes numbers between two bounds.

    Attributes:
        low, high: the bounds; of a description in words they are rounded to six digits.
        is_integer: whether the field takes whole numbers only.
        is_log: whether the field is sampled on a logarithmic scale.
    """

    low: float
    high: float
    is_integer: bool
    is_log: bool


@dataclass(frozen=True)
class Choices:
    """A field that takes one of several values."""


FieldDomain = NumberRange | Choices
_RANGE = re.compile(r"(\S+) to ([^\s,]+)(, whole numbers)?(, logarithmic)?(, where .*)?")


def space_domains(description: Mapping[str, Any]) -> dict[str, FieldDomain]:
    """Return the domain of each searched field that a study's description has."""
    domains = {
        field: domain_of_text(text) for field, text in (description.get("space") or {}).items()
    }
    return {field: domain for field, domain in domains.items() if domain is not None}


def domain_of_text(text: str) -> FieldDomain | None:
    """Read a domain from its words, as studies of older versions have it.

    Returns:
        The domain; None for words that do not describe one.
    """
    if text.startswith("one of "):
        return Choices()
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    return NumberRange(
        low=float(match[1]),
        high=float(match[2]),
        is_integer=match[3] is not None,
        is_log=match[4] is not None,
    )


def space_texts(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the words for each searched field that a study's description has."""
    return {field: str(text) for field, text in (description.get("space") or {}).items()}


def stopping_text(description: Mapping[str, Any]) -> str:
    """Return the words for a study's early stopping; empty where it has none."""
    return str(description.get("stopping") or "")
