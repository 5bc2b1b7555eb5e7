"""Errors that reading the tables raises; callers read their fields, never their text."""

from __future__ import annotations

from collections.abc import Iterable

from sadcl.errors import UserError, did_you_mean


class UnknownName(UserError):
    """A table, column, study or trial that does not exist.

    Args:
        kind: what the name should be: ``table``, ``column``, ``study`` or ``trial``.
        name: the name that was given.
        existing: the names that exist; of trials those that are nearest.
        place: where they exist, for the message; empty where that is obvious.
        remedy: a sentence that says what to do.
    """

    def __init__(
        self, kind: str, name: str, existing: Iterable[str], place: str = "", remedy: str = ""
    ) -> None:
        self.kind, self.name, self.existing = kind, name, list(existing)
        self.place, self.remedy = place, remedy
        where = f" in {place}" if place else ""
        if kind == "trial":  # a study may have thousands, whose keys are much alike
            nearest = ", ".join(map(repr, self.existing[:3]))
            hint = f"; the nearest are {nearest}." if nearest else "; there are none."
        else:
            hint = did_you_mean(name, self.existing)
        statement = f"There is no {kind} {name!r}{where}{hint}"
        super().__init__(f"{statement} {remedy}".rstrip())

    def __reduce__(self) -> tuple[type[UnknownName], tuple[object, ...]]:
        """Pickle the fields: by default only the message would go to another process."""
        return type(self), (self.kind, self.name, self.existing, self.place, self.remedy)


class BadFile(UserError):
    """A file that cannot be read as part of the tables.

    Args:
        uri: the file.
        problem: what is wrong with it, as a clause whose subject is the file.
        remedy: a sentence that says what to do.
    """

    def __init__(self, uri: str, problem: str, remedy: str) -> None:
        self.uri, self.problem, self.remedy = uri, problem, remedy
        super().__init__(f"{uri!r} {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[BadFile], tuple[str, str, str]]:
        """Pickle the fields: by default only the message would go to another process."""
        return type(self), (self.uri, self.problem, self.remedy)


class FileVanished(Exception):
    """A listed file is gone, because a writer or a compaction replaced it: list the files again."""
