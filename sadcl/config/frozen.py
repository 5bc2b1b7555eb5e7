"""What all parts of the configuration share: they are immutable, and checked when they are made."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sadcl.errors import UserError

# The type of a field shows its range.
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0.005, le=100)]


class Frozen(BaseModel):
    """A part of the configuration: immutable, and checked when it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise UserError("; ".join(_explain(item) for item in error.errors()) + ".") from None


def _explain(item: Any) -> str:
    """Turn one of pydantic's errors into a phrase with the field, its value and what is
    possible."""
    name = ".".join(map(str, item["loc"])) or "configuration"
    inner = item.get("ctx", {}).get("error")
    if isinstance(inner, UserError):  # of a nested part, whose message is complete
        whole = "configuration is not possible"  # of the part, which has a name here
        text = str(inner).removesuffix(".")
        if not item["loc"]:
            return text
        return f"{name} {text[14:]}" if text.startswith(whole) else f"{name}.{text}"
    message = reason_text(item)
    if item["type"] == "extra_forbidden":
        return f"there is no configuration field {name!r}"
    if isinstance(item["input"], dict):  # a rule over several fields names them and their values
        return f"{name} is not possible: {message}"
    return f"{name} = {item['input']!r} is not possible: {message}"


_WORDS = (
    ("Value error, ", ""),
    ("Input should be ", "it must be "),
    ("a valid integer", "a whole number"),
    ("a valid ", "a "),
)
"""What pydantic says, and what this package says instead."""


def reason_text(item: Any) -> str:
    """Return what one of pydantic's errors says, in this package's words."""
    text = str(item["msg"])
    for theirs, ours in _WORDS:
        text = text.replace(theirs, ours)
    text = re.sub(r", (unable to parse|got a number with) .*", "", text)
    return text[0].lower() + text[1:]
