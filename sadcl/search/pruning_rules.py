"""Rules that stop a trial of a search early, as values. They count epochs of stage 2.

:mod:`sadcl.ray_backend.pruner` applies them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sadcl.errors import UserError


@dataclass(frozen=True)
class ASHA:
    """Asynchronous successive halving.

    At the epochs ``min_epochs * reduction^k`` a trial continues only if it is among the best 1 /
    ``reduction`` of the trials that have reached this epoch so far.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """

    min_epochs: int = 1
    reduction: int = 3

    def __post_init__(self) -> None:
        if self.min_epochs < 1 or self.reduction < 2:
            raise UserError(
                "min_epochs >= 1 and reduction >= 2 must hold, but got "
                f"{self.min_epochs}, {self.reduction}."
            )

    def __str__(self) -> str:
        return f"ASHA from epoch {self.min_epochs}, reduction {self.reduction}"


@dataclass(frozen=True)
class Median:
    """The median rule.

    It stops a trial whose best epoch so far is below the median of the complete trials at that
    epoch.

    Source: Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017.
    """

    min_epochs: int = 1
    min_trials: int = 4
    """The number of complete trials before anything is stopped."""

    def __post_init__(self) -> None:
        if self.min_epochs < 1 or self.min_trials < 1:
            raise UserError(
                "min_epochs >= 1 and min_trials >= 1 must hold, but got "
                f"{self.min_epochs}, {self.min_trials}."
            )

    def __str__(self) -> str:
        return f"median of {self.min_trials} trials or more, from epoch {self.min_epochs}"


PruningRule = ASHA | Median
RULES: tuple[type[ASHA] | type[Median], ...] = (ASHA, Median)


def rule_to_json(rule: PruningRule | None) -> dict[str, Any] | None:
    """Return a rule as plain JSON: its name and its parameters; None for no rule."""
    return None if rule is None else {"name": type(rule).__name__, "attributes": asdict(rule)}


def rule_from_json(stored: Mapping[str, Any] | None) -> PruningRule | None:
    """Return the rule that :func:`rule_to_json` has stored.

    Raises:
        UserError: for a rule that this version does not have.
    """
    if stored is None:
        return None
    for kind in RULES:
        if stored.get("name") == kind.__name__:
            return kind(**stored["attributes"])
    raise UserError(
        f"This version of sadcl has no pruning rule {stored.get('name')!r}; it has "
        f"{', '.join(kind.__name__ for kind in RULES)}. A newer version may have written it."
    )
