"""In what a study differs from the one of its name on disk, in words that name fields and values.

A study's file has digests of configuration and data; the rows of its runs have what they stand for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sadcl.config import Config
from sadcl.config.fields import value_text
from sadcl.config.sources import source_name
from sadcl.errors import UserError
from sadcl.search.ablation import AblationPlan
from sadcl.search.plan import Plan
from sadcl.search.study_file import described_space
from sadcl.search.trial import Phase

GROWING = ("arms", "datasets", "sources")
"""Parts of a study's identity to which entries may be added later."""
MAY_BE_LEFT_OUT = ("sources", "confirm_with")
"""Parts that an identity does not have where they are empty."""
MOST_FIELDS = 6
"""Fields that are named; of more than so many the rest is counted."""
KEEP_OR_DISCARD = (
    "To keep the former results, give this study another --name or --storage. To discard them: "
    "--fresh."
)

ABSENT = "not there"
"""The value of an entry that an identity lacks."""


class Difference(NamedTuple):
    """One entry in which the identity of a study differs from the one on disk.

    Attributes:
        path: the names that lead to it, outermost first.
        stored: the value on disk, or ``ABSENT``.
        current: the value of the study, or ``ABSENT``.
    """

    path: tuple[str, ...]
    stored: Any
    current: Any

    def __str__(self) -> str:
        return f"{' of '.join(self.path)}: {self.stored} before, {self.current} now"


def differences(stored: Mapping[str, Any], identity: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield where an identity differs from the content of a study's file.

    Entries that were added to a growing part, or that are left out of it this time, are no
    difference.
    """
    dropped: dict[str, Any] = {part: {} for part in MAY_BE_LEFT_OUT if part in stored}
    for part, current in {**dropped, **identity}.items():
        before = stored.get(part, {} if part in MAY_BE_LEFT_OUT else ABSENT)
        if part in GROWING and isinstance(before, dict):
            shared = before.keys() & current.keys()
            before, current = ({name: p[name] for name in shared} for p in (before, current))
        if part == "space" and before != current and isinstance(before, dict):
            before, current = (described_space({"space": space}) for space in (before, current))
        if before != current:
            yield from _entries((part,), before, current)


def _entries(path: tuple[str, ...], stored: Any, current: Any) -> Iterator[Difference]:
    if not (isinstance(stored, dict) and isinstance(current, dict)):
        yield Difference(path, stored, current)
        return
    for name in sorted({*stored, *current}):
        before, now = stored.get(name, ABSENT), current.get(name, ABSENT)
        if before != now:
            yield from _entries((*path, name), before, now)


def another_study(
    plan: Plan | AblationPlan,
    root: str,
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[Difference],
) -> str:
    """Return the message that a study on disk is another one, with what to do.

    Args:
        plan: of the study that was to run.
        root: the storage root.
        rows: of the study on disk, from the trials table.
        found: the differences, at least one.
    """
    edited = [
        f"{source_name(one.path[-1])} was edited after this study began"
        for one in found
        if one.path[0] == "sources"
    ]
    words = [*_in_words(plan, rows, found), *edited]
    if len(words) == len(edited):
        return f"{'; '.join(edited)}. {KEEP_OR_DISCARD}"
    return (
        f"The study {plan.study!r} in {root!r} is another one ({'; '.join(words)}). "
        f"{KEEP_OR_DISCARD}"
    )


def _in_words(
    plan: Plan | AblationPlan, rows: Sequence[Mapping[str, Any]], found: Sequence[Difference]
) -> Iterator[str]:
    """Yield the differences but those of sources."""
    ends = {difference.path[-1] for difference in found}
    # with the same base, runs of one purpose differ in what their arms and settings are alone
    fields = _changed_fields(plan, rows) if "base" in ends else {}
    for field, (before, now) in list(fields.items())[:MOST_FIELDS]:
        name = "data" if field == "data.name" else field
        yield f"{name}: {value_text(before)} before, {value_text(now)} now"
    if len(fields) > MOST_FIELDS:
        yield f"{len(fields) - MOST_FIELDS} further fields"
    has_other_data = any(field.startswith("data.") for field in fields)
    for difference in found:
        match difference.path:
            case ("sources", *_):
                continue
            case (*_, "base") if fields:
                continue
            case (*parts, "base"):
                of = f" of {parts[-1]}" if parts else ""
                yield f"base{of}: the configuration, which includes all of --set, is another one"
            case (*_, "data") if has_other_data:
                continue
            case (*_, "data"):
                yield "data: the file names, the labels or the split are others than before"
            case (*_, "start"):
                yield "model.start: the file is another one than before"
            case _:
                yield str(difference)


def _changed_fields(
    plan: Plan | AblationPlan, rows: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[Any, Any]]:
    """Return the former and the present value of each field in which a run differs.

    A run of the plan is compared with the row of the same purpose. Without such a row there are
    none.
    """
    trials = plan.planned_trials([])
    candidates: list[dict[str, tuple[Any, Any]]] = []
    searched: Mapping[str, Any] = {}
    if isinstance(plan, Plan):
        searched = plan.search.space_at(plan.scale)
        trials = [*trials, plan.search_trial({})]
    for trial in trials:
        for row in rows:
            run = (row["phase"], row["arm"], row["seed"])
            same_data = isinstance(plan, Plan) or row.get("data_name") == trial.config.data.name
            same_run = run == (trial.phase, trial.arm, trial.config.seed) and same_data
            if not same_run or not row.get("config"):
                continue
            with contextlib.suppress(UserError):  # a configuration of parts that are gone
                former = Config.stored(row["config"]).flat()
                current = trial.config.flat()
                skipped = searched if trial.phase == Phase.SEARCH else {}
                changed = {
                    field: (former.get(field), value)
                    for field, value in current.items()
                    if former.get(field) != value and field not in skipped
                }
                if changed:
                    candidates.append(changed)
    return min(candidates, key=len, default={})  # runs of one purpose may differ in other fields
