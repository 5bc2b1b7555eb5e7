"""When a trial of a search is stopped early: plain values; the resource is the epoch of the stage that is searched."""

from __future__ import annotations

from dataclasses import dataclass

from sadcl.errors import UserError


@dataclass(frozen=True)
class ASHA:
    """Asynchronous successive halving (Li et al., MLSys 2020): at epochs ``min_epochs * reduction^k`` a trial goes on only
    where it is among the best 1 / ``reduction`` of those that have come so far."""

    min_epochs: int = 1
    reduction: int = 3

    def __post_init__(self) -> None:
        if self.min_epochs < 1 or self.reduction < 2:
            raise UserError(
                f"min_epochs >= 1 and reduction >= 2 must hold, but got {self.min_epochs}, {self.reduction}."
            )

    def __str__(self) -> str:
        return f"ASHA from epoch {self.min_epochs}, reduction {self.reduction}"


@dataclass(frozen=True)
class Median:
    """Stops a trial whose best epoch so far is below the median of complete trials at that epoch (Golovin et al., 2017)."""

    min_epochs: int = 1
    min_trials: int = 4
    """Complete trials before anything is stopped."""

    def __post_init__(self) -> None:
        if self.min_epochs < 1 or self.min_trials < 1:
            raise UserError(
                f"min_epochs >= 1 and min_trials >= 1 must hold, but got {self.min_epochs}, {self.min_trials}."
            )

    def __str__(self) -> str:
        return f"median of {self.min_trials} trials or more, from epoch {self.min_epochs}"


Stopping = ASHA | Median
