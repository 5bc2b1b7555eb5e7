"""Prepare and run one search."""

from __future__ import annotations

import dataclasses
from typing import Any

from sadcl.errors import UserError
from sadcl.launch.datasets import PreparedData, check_free, prepare_data
from sadcl.launch.options import Options
from sadcl.launch.setup import claim_study, show_plan
from sadcl.launch.study_estimate import checkpoint_limit, maps_of, planned_configs
from sadcl.ray_backend import environment
from sadcl.reports import search_summary
from sadcl.search import Plan, Search
from sadcl.search.changes import change_lines, with_changes
from sadcl.search.ranking import winning_trial
from sadcl.search.settings import check_setting, transfer
from sadcl.study import record
from sadcl.study.checkpoint_quota import CheckpointQuota


def prepare_search(
    search: Search, scale: str, root: str | None, options: Options
) -> tuple[Plan, PreparedData]:
    """Read a search's data, make its plan and print it.

    Args:
        search: What to find out.
        scale: ``demo`` or ``full``.
        root: Where its data set is; None for the drawn scenes.
        options: Those of the start, whose budget goes before the search's own.

    Raises:
        UserError: For everything that can be found wrong before trials start.
    """
    total = options.n_trials or search.trials_at(scale)
    if total < search.confirm_top:
        raise UserError(
            f"trials >= {search.confirm_top} must hold, because so many are confirmed, but got "
            f"{total}."
        )
    changes = options.changes or {}
    changed = with_changes(search, changes)
    changed_fields = list(change_lines(search, changed, changes, scale))
    search = dataclasses.replace(
        changed,
        max_epochs=options.max_epochs or search.max_epochs,
        max_hours=options.max_hours or search.max_hours,
    )
    dataset = search.base.data
    check_free(search.name, scale, [(dataset, root)], options)
    prepared = prepare_data(
        search.name,
        search.config(scale),
        dataset,
        scale,
        root,
        options,
        lambda base: search.variants(scale, base),
    )
    context = prepared.context
    plan = Plan(
        search,
        scale,
        context.base,
        total,
        context.digest,
        context.whole_digest,
        context.start,
        num_images=context.num_images,
    )
    prepared = prepared.of_study(plan.study)
    show_plan(search.question, plan, [prepared], options, changed_fields)
    return plan, prepared


def run_search(
    plan: Plan, prepared: PreparedData, options: Options
) -> tuple[list[dict[str, str]], list[str]]:
    """Run what a search still lacks.

    Returns:
        Its summary, as rows of a table and as sentences.

    Raises:
        UserError: Where the study cannot be claimed, or where stage 1 or all trials fail.
    """
    with claim_study(plan, options) as study:
        address = environment.prepare(options.address)
        from sadcl.ray_backend import driver  # imports Ray, which then reads the environment

        placement = prepared.placement
        maps = maps_of(planned_configs(plan, study.rows), [prepared])
        limit = checkpoint_limit(maps, placement, options)
        quota = CheckpointQuota(placement.storage, limit, *prepared.checkpoint_bytes)
        driver.run_search(
            study, placement, address, prepared.witnesses, options.max_concurrent, quota
        )
    study.refresh()
    return search_summary.summary(study.rows_with_admitted(), plan.search, plan.image_counts)


def best_setting_of(
    study: str, earlier: Search, search: Search, scale: str, storage: str
) -> dict[str, Any] | None:
    """The best setting of an earlier search within the space of another; None if there is none.

    Args:
        study: The name of the earlier search's study.
        earlier: The earlier search.
        search: The other one.
        scale: ``demo`` or ``full``.
        storage: Root of the tables.
    """
    rows = [row for row in record.all_rows(storage) if row["study"] == study]
    winner = winning_trial(rows, earlier.confirm_top, earlier.confirm_seeds)
    if winner is None:
        return None
    space = search.space_at(scale)
    setting = transfer(winner["settings"], earlier.space_at(scale), space)
    try:
        check_setting(space, setting, search.config(scale))
    except UserError:
        return None
    return setting or None
