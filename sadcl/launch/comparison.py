"""Run a comparison of methods: the search of each, then the ablation of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sadcl.console import banner, print_text
from sadcl.errors import UserError
from sadcl.launch.ablation import run_ablation
from sadcl.launch.datasets import reading_once, roots_of
from sadcl.launch.options import SEARCH_ONLY, Options
from sadcl.launch.search import prepare_search, run_search
from sadcl.launch.setup import together_text
from sadcl.search import Comparison
from sadcl.search.changes import change_lines, with_changes
from sadcl.search.ranking import winning_trial
from sadcl.study import record


@reading_once()
def run_comparison(
    comparison: Comparison, scale: str, options: Options
) -> tuple[list[str], list[str]] | None:
    """Run what a comparison still lacks, and print its table.

    A method whose search fails does not keep the others from being searched. Without its setting
    there is no ablation.

    Args:
        comparison: What to compare.
        scale: ``demo`` or ``full``.
        options: Those of the start; the budget is that of each search.

    Returns:
        The names of its studies, the ablation's first, and what it has shown in sentences; None
        after a dry run.

    Raises:
        UserError: For everything that can be found wrong before runs start, and where the search of
            a method has no complete trial.
    """
    changes = options.changes or {}
    changed = with_changes(comparison, changes)
    for line in change_lines(comparison, changed, changes, scale):
        print_text(line)
    comparison, options = changed, dataclasses.replace(options, changes=None)
    dataset = comparison.base.data.name
    root = roots_of([dataset], options.data_root).get(dataset)
    ready = {
        method: prepare_search(search, scale, root, options)
        for method, search in comparison.searches().items()
    }
    together = together_text(ready.values(), options)
    if together and not options.dry_run:
        print_text(together)
    failures = []
    for method, (plan, prepared) in ready.items():
        if options.dry_run:
            break
        try:
            _, sentences = run_search(plan, prepared, options)
        except UserError as error:  # the other searches do not depend on it
            failures.append(f"{method}: {error}")
            banner(str(error), f"{plan.study} IS INCOMPLETE")
            continue
        for sentence in sentences:
            print_text(f"{method}: {sentence}")
    if failures:
        raise UserError("\n".join(failures))
    studies = {method: plan.study for method, (plan, _) in ready.items()}
    settings = best_settings(studies, options.storage)
    if missing := [method for method in ready if method not in settings and not options.dry_run]:
        raise UserError(
            f"The searches of {', '.join(missing)} have no complete trial, so that "
            f"{comparison.name!r} cannot compare them. --retry-failed runs failed trials again."
        )
    without_budget: dict[str, Any] = dict.fromkeys(SEARCH_ONLY)
    options = dataclasses.replace(options, **without_budget)
    outcome = run_ablation(comparison.ablation(scale, settings), scale, options)
    if outcome is None:
        if together:
            print_text(together)
        return None
    name, sentences = outcome
    return [name, *(plan.study for plan, _ in ready.values())], sentences


def best_settings(studies: Mapping[str, str], storage: str) -> dict[str, dict[str, Any]]:
    """Return the setting that each search has chosen by the held-out images, by method.

    Methods whose search has no complete trial are left out.

    Args:
        studies: The name of each search's study, by method.
        storage: Root of the tables.
    """
    rows = record.all_rows(storage)
    settings = {}
    for method, study in studies.items():
        winner = winning_trial([row for row in rows if row["study"] == study], 1, ())
        if winner is not None:
            settings[method] = winner["settings"]
    return settings
