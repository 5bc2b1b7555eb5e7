"""As many paired seeds as a comparison needs: when an arm has enough, and which seeds it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from sadcl.errors import UserError
from sadcl.search import sequential

ALPHA = 0.05
"""The probability of any false positive among the arms of a data set, however often one looks."""
MIN_PAIRS = 3
"""Fewer pairs decide nothing: with two, chance alone makes nearly equal differences."""
MAX_SEEDS = 200


class Stop(StrEnum):
    """Why an arm gets no further seed."""

    SIGN = "sign settled"
    NARROW = "narrow enough"
    LIMIT = "limit reached"


@dataclass(frozen=True)
class Until:
    """Seeds 1, 2, 3, ... until each difference is settled.

    An arm and the arm that it is compared with get further seeds until the 95 % interval of their
    difference on the test images is narrow enough, or leaves 0 out, or there are ``at_most``. The
    interval is corrected for looking after every seed and for the number of arms, so it holds the
    true difference of all arms with a probability of 95 %, whatever stops them
    (:mod:`sadcl.search.sequential`). Where nothing is evaluated on test images, the held-out images
    decide.

    Args:
        half_width: half of the interval's width that is narrow enough, in percentage points.
        at_least: the number of seeds before the first look, at least 3.
        at_most: the number of seeds at which an arm ends unsettled, up to 200. The interval at the
            limit is about a sixth wider than one of a number of seeds that was fixed before.

    Raises:
        UserError: for bounds that can never be met.
    """

    half_width: float
    at_least: int = 5
    at_most: int = 30

    def __post_init__(self) -> None:
        for name in ("at_least", "at_most"):
            if type(getattr(self, name)) is not int:
                raise UserError(f"{name} must be a whole number, but got {getattr(self, name)!r}.")
        is_number = isinstance(self.half_width, int | float) and self.half_width is not True
        if not is_number or not 0 < self.half_width < math.inf:
            raise UserError(
                "half_width must be above 0, in percentage points, because no interval is narrower "
                f"than that, but got {self.half_width!r}."
            )
        if self.at_least < MIN_PAIRS:
            raise UserError(
                f"at_least >= {MIN_PAIRS} must hold, because fewer pairs decide nothing, but got "
                f"at_least={self.at_least}."
            )
        if not self.at_least <= self.at_most <= MAX_SEEDS:
            raise UserError(
                f"at_least <= at_most <= {MAX_SEEDS} must hold, but got at_least={self.at_least} "
                f"and at_most={self.at_most}."
            )

    def __str__(self) -> str:
        return (
            f"{self.at_least} to {self.at_most} seeds, until the 95 % interval of a "
            f"difference is ± {self.half_width:g} or its sign is settled"
        )

    @property
    def seeds(self) -> range:
        """All seeds that may run, in their order."""
        return range(1, self.at_most + 1)

    def level(self, num_values: int, family: int = 1) -> float | None:
        """Return the level of the look at some pairs; None where there is no look.

        Args:
            num_values: the number of pairs so far.
            family: the number of arms that are compared on the data set.
        """
        if not self.at_least <= num_values <= self.at_most:
            return None
        levels = sequential.look_levels(ALPHA / family, self.at_least, self.at_most)
        return levels[num_values - self.at_least]

    def corrected_p(self, p: float, num_values: int) -> float:
        """Correct the p-value of a t test over some pairs for looking after every seed."""
        return sequential.sequential_p(p, num_values, self.at_least, self.at_most)

    def stop(self, differences: Sequence[float], family: int) -> Stop | None:
        """Return why these differences are enough; None where they are not.

        Args:
            differences: of an arm from the one that it is compared with, one for each pair.
            family: as for :meth:`level`.
        """
        from scipy import special

        level, count = self.level(len(differences), family), len(differences)
        error = float(np.std(differences, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
        if level is None or error < 1e-9:  # the same in every seed: nothing is known of the spread
            return None
        half_width = -float(special.stdtrit(count - 1, level / 2)) * error
        if abs(float(np.mean(differences))) > half_width:
            return Stop.SIGN
        return Stop.NARROW if half_width <= self.half_width else None

    def to_json(self) -> dict[str, Any]:
        """Return the bounds as a study's file stores them."""
        return {
            "half_width": self.half_width,
            "at_least": self.at_least,
            "at_most": self.at_most,
        }


def until_from_json(stored: Mapping[str, Any] | None) -> Until | None:
    """Return the bounds of a study's file; None where its seeds are fixed."""
    return Until(**stored) if stored else None


def least_pairs(until: Until | None) -> int:
    """Return the number of pairs with which a difference is first tested; None: fixed seeds."""
    return MIN_PAIRS if until is None else until.at_least


class ArmSeeds(NamedTuple):
    """How far an arm is.

    Attributes:
        pending: the seeds that it and the arm that it is compared with still need now.
        stop: why it needs no further one; None as long as it does.
        open: the seeds that it may need in all, with ``pending``.
    """

    pending: tuple[int, ...]
    stop: Stop | None
    open: tuple[int, ...]


def arm_seeds(
    until: Until,
    row_of: Callable[[str, int], Mapping[str, Any] | None],
    arm: str,
    reference: str,
    family: int,
    metric: str,
) -> ArmSeeds:
    """Find out which seeds an arm needs, from the rows of runs that have ended alone.

    So a study that was interrupted asks for the same seeds as one that was not.

    Args:
        until: the bounds.
        row_of: returns the row of the run of an arm and a seed if it has ended.
        arm, reference: the arm, and the one that it is compared with.
        family: the number of arms that are compared on the data set.
        metric: the column of the figures.
    """
    pairs = {seed: (row_of(arm, seed), row_of(reference, seed)) for seed in until.seeds}
    unended = tuple(seed for seed, rows in pairs.items() if None in rows)
    if first := tuple(seed for seed in unended if seed <= until.at_least):
        return ArmSeeds(first, None, unended)
    figures = [[figure(row, metric) for row in rows] for rows in pairs.values()]
    stop = until.stop([a - b for a, b in figures if math.isfinite(a - b)], family)
    if stop is None and unended:
        return ArmSeeds(unended[:1], None, unended)
    return ArmSeeds((), stop or Stop.LIMIT, ())


def figure(row: Mapping[str, Any] | None, metric: str) -> float:
    """Return the figure of a run; nan where it has none."""
    value = None if row is None or row["status"] != "complete" else row.get(metric)
    return math.nan if value is None else float(value)


def deciding_metric(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return ``test_mAP``, or ``val_mAP`` where no run has a figure on test images."""
    has_test = any(math.isfinite(figure(row, "test_mAP")) for row in rows)
    return "test_mAP" if has_test else "val_mAP"
