"""Rows of a table that cannot be used: all of them are found before one is complained of."""

from __future__ import annotations

import shlex
from pathlib import Path

from sadcl.data.base import ImageSet
from sadcl.errors import UserError

MOST_ROWS = 1000
"""So many are described; the others are counted."""


class BadRows(UserError):
    """Rows that cannot be used.

    Args:
        message: about the first, and how many more there are.
        rows: what is wrong with each, at most :data:`MOST_ROWS` of them.
        number: of all.
        good: both splits of the other rows; None where these alone are no data set.
    """

    def __init__(
        self,
        message: str,
        rows: tuple[str, ...] = (),
        number: int = 0,
        good: tuple[ImageSet, ImageSet] | None = None,
    ) -> None:
        super().__init__(message)  # pickling restores the others from the instance's dict
        self.rows, self.number, self.good = rows, number, good

    def with_root(self, place: str, root: str) -> BadRows:
        """Return the same with another name of the folder that was read."""
        rows = tuple(row.replace(place, root) for row in self.rows)
        return BadRows(str(self).replace(place, root), rows, self.number, self.good)


class RowProblems:
    """What is wrong with the rows of tables, in their order."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.number = 0

    def add(self, error: UserError) -> None:
        """Note that a row cannot be used."""
        self.number += 1
        if len(self.rows) < MOST_ROWS:
            self.rows.append(str(error))

    def check(self, root: Path, good: tuple[ImageSet, ImageSet] | None) -> None:
        """Complain of the rows, if there are any.

        Args:
            root: of the data set, for the message.
            good: both splits of the other rows, or None.

        Raises:
            BadRows: if there are any.
        """
        if not self.number:
            return
        message = self.rows[0]
        if self.number > 1:
            others = "row is" if self.number == 2 else "rows are"
            message += (
                f" {self.number - 1:,} more {others} wrong; this lists them: sadcl data check "
                f"folder --data-root {shlex.quote(str(root))}"
            )
        raise BadRows(message, tuple(self.rows), self.number, good)
