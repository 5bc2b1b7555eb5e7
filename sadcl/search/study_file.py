"""The space and the stopping rule in a study's file, in today's form and in that of before.

Today's form is JSON (:func:`sadcl.search.space.space_to_json`,
:func:`sadcl.search.pruning_rules.rule_to_json`). The version before stored a sentence for each
field, such as ``0.05 to 0.5, logarithmic``, and one for the stopping rule. This is the only place
that knows those sentences; claiming the study again replaces them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from sadcl.errors import UserError
from sadcl.search.pruning_rules import rule_from_json
from sadcl.search.space import (
    Choice,
    Distribution,
    Float,
    Int,
    Plain,
    Space,
    When,
    space_from_json,
    space_text,
)

_CONDITION = re.compile(r"(?P<then>.+), where (?P<field>\S+) is (?P<values>.+)")
_RANGE = re.compile(
    r"(?P<low>\S+) to (?P<high>[^\s,]+)(?P<whole>, whole numbers)?(?P<log>, logarithmic)?"
)


def read_space(description: Mapping[str, Any]) -> dict[str, Distribution]:
    """Return the space that a study's file describes, in whichever form.

    A bound from a sentence has six digits. A field whose sentence cannot be read is left out.

    Args:
        description: the content of the study's file.

    Raises:
        UserError: for JSON of a distribution that this version does not have.
    """
    stored = description.get("space") or {}
    sentences = {field: text for field, text in stored.items() if isinstance(text, str)}
    parsed = {field: _parse_sentence(text) for field, text in sentences.items()}
    return {
        **{field: distribution for field, distribution in parsed.items() if distribution},
        **space_from_json({k: v for k, v in stored.items() if k not in sentences}),
    }


def described_space(description: Mapping[str, Any]) -> dict[str, str]:
    """Return each field of a study's space in words.

    A sentence that cannot be read stays as it is stored.
    """
    stored = description.get("space") or {}
    text = space_text(read_space(description))
    return {field: text.get(field, str(stored[field])) for field in sorted(stored)}


def described_stopping(description: Mapping[str, Any]) -> str | None:
    """Return a study's stopping rule in words, in whichever form it is stored; None for no rule."""
    stored = description.get("stopping")
    if stored is None or isinstance(stored, str):
        return stored
    return str(rule_from_json(stored))


def with_current_space(
    description: Mapping[str, Any], space: Space, stored_space: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of a study's file with today's form for each sentence of the space.

    A sentence that describes another distribution than the space has stays.

    Args:
        description: the content of the study's file.
        space: the space to compare with.
        stored_space: the same space in today's form.
    """
    stored = description.get("space")
    if not isinstance(stored, Mapping):
        return dict(description)
    same = {
        field: stored_space[field]
        for field, text in stored.items()
        if field in space and text == old_sentence(space[field])
    }
    return {**description, "space": {**stored, **same}}


def old_sentence(distribution: Distribution) -> str:
    """Return the sentence that the version before stored for a distribution. It knew no steps."""
    match distribution:
        case When():
            values = " or ".join(map(str, distribution.values))
            return f"{old_sentence(distribution.then)}, where {distribution.field} is {values}"
        case Choice():
            return f"one of {', '.join(map(repr, distribution.values))}"
        case Int():
            bounds = f"{distribution.low} to {distribution.high}, whole numbers"
            step = "" if distribution.step == 1 else f", step {distribution.step}"
        case Float():
            bounds = f"{distribution.low:g} to {distribution.high:g}"
            step = "" if distribution.step is None else f", step {distribution.step}"
    return f"{bounds}{', logarithmic' if distribution.log else ''}{step}"


def _parse_sentence(text: str) -> Distribution | None:
    """Return the distribution of a sentence of the version before; None if it cannot be read."""
    condition = _CONDITION.fullmatch(text)
    try:
        then = _parse_plain(condition["then"] if condition else text)
    except (UserError, ValueError, SyntaxError):
        return None
    if condition is None or then is None:
        return then
    return When(condition["field"], tuple(condition["values"].split(" or ")), then)


def _parse_plain(text: str) -> Plain | None:
    if text.startswith("one of "):
        return Choice(*ast.literal_eval(f"({text.removeprefix('one of ')},)"))
    span = _RANGE.fullmatch(text)
    if span is None:
        return None
    low, high, log = float(span["low"]), float(span["high"]), span["log"] is not None
    return Int(int(low), int(high), log) if span["whole"] else Float(low, high, log)
