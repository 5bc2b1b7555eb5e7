"""An estimate of the time that is left, which people can read while it changes."""

from __future__ import annotations

import math

_LEAST_SECONDS = 20.0
"""How long something has to run before anything is said about the rest."""
_MEMORY_SECONDS = 200.0
"""Work that is older counts less for the rate; after a long time, what is older than a third."""
_SETTLING_SECONDS = 60.0
"""In this time the figure that is shown approaches a new estimate by two thirds."""


class TimeLeft:
    """Estimates how long a plan takes from the work that is done.

    The rate is that of the recent work, because stages and arms differ in cost and the number of
    runs at once changes. The figure counts down with the clock and approaches new estimates slowly,
    in proportion, so that a single long or short epoch does not throw it.

    What passes until the first epoch has ended counts only until then: it includes the start of
    workers, and the feature maps that are computed once.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._then = 0.0
        self._work = 0.0
        self._recent_work = 0.0
        self._recent_seconds = 0.0
        self._shown: float | None = None
        self._is_first_epoch = True

    def update(self, now: float, work: float, left: float) -> float | None:
        """Take what is done, and return the seconds that are left.

        Args:
            now: A clock in seconds.
            work: Done since the start, in epochs and parts of them.
            left: Work that is still to come.

        Returns:
            None until enough was done.
        """
        if self._began is None:
            self._began, self._then = now, now
        passed, self._then = now - self._then, now
        kept = math.exp(-passed / max(_MEMORY_SECONDS, (now - self._began) / 3))
        self._recent_seconds = self._recent_seconds * kept + passed
        self._recent_work = self._recent_work * kept + max(work - self._work, 0.0)
        self._work = max(work, self._work)
        if self._is_first_epoch and self._work >= 1:
            self._is_first_epoch = False
            self._began, self._recent_seconds, self._recent_work = now, 0.0, 0.0
        is_early = self._work < 2 and (not self._work or now - self._began < 60)
        if is_early or now - self._began < _LEAST_SECONDS or not self._recent_work:
            return self._count_down(passed)
        estimate = max(left, 0.0) * self._recent_seconds / self._recent_work
        if self._shown is None or not left:
            self._shown = estimate
            return self._shown
        counted = max(self._shown - passed, 1.0)
        share = 1 - math.exp(-passed / _SETTLING_SECONDS)
        self._shown = counted * (max(estimate, 1.0) / counted) ** share
        return self._shown

    def _count_down(self, passed: float) -> float | None:
        if self._shown is not None:
            self._shown = max(self._shown - passed, 1.0)
        return self._shown
