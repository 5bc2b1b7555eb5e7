"""Numbers, durations and settings as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def short_names(fields: Iterable[str]) -> dict[str, str]:
    """Map each field's dotted name to its last part where that is unique, else to itself."""
    fields = list(fields)
    last = [name.split(".")[-1] for name in fields]
    return {
        full: short if last.count(short) == 1 else full
        for full, short in zip(fields, last, strict=True)
    }


def settings_text(params: Mapping[str, Any], fields: Iterable[str] = ()) -> str:
    """Write a trial's settings in a few characters, such as ``tau=0.12 policy=slot``.

    Args:
        params: The values by field.
        fields: Those of the settings beside it, from which the names are told apart too.
    """
    names = short_names({*params, *fields})
    return " ".join(f"{names[field]}={setting_text(value)}" for field, value in params.items())


def setting_text(value: Any) -> str:
    """Write the value of a setting, a number with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def clock_text(seconds: float | None) -> str:
    """Write a duration as 1:05:09 or 5:09; ``?`` where it is unknown (None)."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def left_text(seconds: float, is_limit: bool = False) -> str:
    """Write an estimate of the time left as ``about 12 min``, no finer than it is known.

    Args:
        seconds: The estimate.
        is_limit: Whether it may be less: ``at most 12 min``.
    """
    if seconds < 60:
        return "less than a minute"
    about = "at most" if is_limit else "about"
    if seconds < 5400:
        return f"{about} {seconds / 60:.0f} min"
    return f"{about} {seconds / 3600:.1f} hours"


def remaining_text(seconds: float | None, is_limit: bool = False) -> str:
    """Write what is left of a plan, for example ``about 12 min left``; None is not known yet."""
    return "time left not known yet" if seconds is None else f"{left_text(seconds, is_limit)} left"


def bytes_text(count: float) -> str:
    """Write a number of bytes with a decimal unit, such as 29.7 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} TB"


def count_text(count: int, noun: str, plural: str = "") -> str:
    """Write a number with its noun: 1 run, 2,000 runs.

    Args:
        count: The number.
        noun: In the singular.
        plural: Where it is not the singular with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
