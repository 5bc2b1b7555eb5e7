"""Fields of a study's base that a start gives other values: ``--set FIELD=VALUE``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sadcl.config import EQ4, PARTS, Config, component
from sadcl.config.fields import all_fields, value_of, value_text
from sadcl.errors import UserError
from sadcl.search.ablation import Ablation
from sadcl.search.comparison import Comparison
from sadcl.search.search import Search

Study = Search | Ablation | Comparison
StudyT = TypeVar("StudyT", Search, Ablation, Comparison)


def with_changes(study: StudyT, changes: Mapping[str, Any]) -> StudyT:
    """Return a study whose base configurations, at both scales, have other values.

    Args:
        study: the study as its file has it.
        changes: the values by field.

    Raises:
        UserError: for an unknown field, a value that a base cannot have, or a field whose value in
            the base decides nothing, because the study searches it or each arm sets it.
    """
    if not changes:
        return study
    for scale in ("full", "demo"):
        if isinstance(study, Search):
            _check_searched(study, scale, changes)
        else:
            _check_arms(study, scale, changes)
    if isinstance(study, Search | Comparison):
        base = changed_config(study.base, changes, "full")
        return dataclasses.replace(
            study, base=base, demo=changed_config(study.demo, changes, "demo")
        )
    bases = {
        scale: {name: changed_config(one, changes, scale) for name, one in of_scale.items()}
        for scale, of_scale in ((scale, study.bases(scale)) for scale in ("full", "demo"))
    }
    if isinstance(study.base, Config):  # its name is that of its data set
        bases["full"] = {one.data.name: one for one in bases["full"].values()}
    return dataclasses.replace(study, base=bases["full"], demo=bases["demo"] or None)


def changed_config(config: Config, changes: Mapping[str, Any], scale: str) -> Config:
    """Return a configuration with other values.

    Raises:
        UserError: for an unknown field, a value that it cannot have, or an argument of a part that
            takes none.
    """
    try:
        changed = config.override(changes)
    except UserError as error:
        raise UserError(f"{str(error).removesuffix('.')} (at {scale} scale).") from None
    flat = changed.flat()
    for holder, arguments in PARTS.items():
        given = [name for name in changes if _overlap(name, arguments) and changes[name] != {}]
        if given and (not component.is_path(flat[holder]) or flat[holder] == EQ4):
            raise UserError(
                f"{given[0]} is not possible: {holder} is {flat[holder]!r} (at {scale} scale), "
                f"which takes none. `sadcl config fields {holder}` says more."
            )
    return changed


def change_lines(study: Study, changed: Study, changes: Iterable[str], scale: str) -> Iterator[str]:
    """Yield each change in words, with the value that it replaces.

    Args:
        study: the study as its file has it.
        changed: the study with other values.
        changes: the fields that have them.
        scale: ``demo`` or ``full``.
    """
    before, now = _bases(study, scale), _bases(changed, scale)
    arms = _arms(study, scale)
    for field in changes:
        value, former = (
            " or ".join(sorted({value_text(value_of(base, field)) for base in bases}))
            for bases in (now, before)
        )
        text = f"  --set {field} = {value}"
        if field in all_fields():  # an argument of a part has its default there
            text += f", in place of {former}"
        if others := [name for name, fields in arms.items() if _setting(fields, field)]:
            text += f"; not in {', '.join(others)}, which set{'s' * (len(others) == 1)} it"
        yield text


def _bases(study: Study, scale: str) -> list[Config]:
    """Return the configuration of each data set at a scale."""
    if isinstance(study, Ablation):
        return list(study.bases(scale).values())
    return [study.config(scale)]


def _arms(study: Study, scale: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the fields that each arm, or the search of each method, has other values of."""
    if isinstance(study, Search):
        return study.baselines
    if isinstance(study, Ablation):
        return study.arms_at(scale)
    searches = study.searches()
    return {
        method: {**fields, **searches[method].space_at(scale)}
        for method, fields in study.methods_at(scale).items()
    }


def _overlap(one: str, other: str) -> bool:
    """Return whether two names are of one field, or one is an argument in the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _setting(fields: Mapping[str, Any], name: str) -> str | None:
    """Return the field by which an arm decides what a name stands for; None if it does not.

    A part that an arm sets takes none of the arguments of the former one.
    """
    for field in fields:
        if _overlap(field, name) or (field in PARTS and _overlap(PARTS[field], name)):
            return field
    return None


def _check_searched(search: Search, scale: str, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        for field, distribution in search.space_at(scale).items():
            if _overlap(field, name):
                raise UserError(
                    f"--set {name}={value} is not possible: {search.name} searches {field} "
                    f"({distribution}), so a value in its base would have no effect. Change the "
                    "space in the experiment's file."
                )


def _check_arms(study: Ablation | Comparison, scale: str, changes: Mapping[str, Any]) -> None:
    arms = _arms(study, scale)
    for name, value in changes.items():
        reason = None
        if name == "seed" and isinstance(study, Ablation):
            seeds = str(study.until or ", ".join(map(str, study.seed_numbers)))
            reason = f"its seeds are {seeds}. Change them in the experiment's file"
        elif name == "data.name" and not isinstance(study.base, Config):
            reason = "each of its data sets has its own base"
        elif all(_setting(fields, name) for fields in arms.values()):
            each = "arms sets it" if isinstance(study, Ablation) else "methods sets or searches it"
            reason = f"each of its {each}. Change them in the experiment's file"
        if reason is not None:
            raise UserError(f"--set {name}={value} is not possible for {study.name}: {reason}.")
