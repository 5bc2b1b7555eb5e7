"""Prepare and run one ablation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from sadcl.config import Config
from sadcl.console import banner, show_table
from sadcl.errors import UserError
from sadcl.launch.cost import network_cost
from sadcl.launch.datasets import PreparedData, check_free, prepare_data, roots_of
from sadcl.launch.options import SEARCH_ONLY, Options, flag
from sadcl.launch.setup import claim_study, show_plan
from sadcl.ray_backend import environment
from sadcl.reports import ablation as ablation_reports
from sadcl.reports import ablation_text
from sadcl.search import Ablation, AblationPlan
from sadcl.search.changes import change_lines, with_changes
from sadcl.search.trial import arm_config, study_name


def run_ablation(ablation: Ablation, scale: str, options: Options) -> tuple[str, list[str]] | None:
    """Run what an ablation still lacks, and print its table for each data set.

    Args:
        ablation: What to compare.
        scale: ``demo`` or ``full``.
        options: Those of the start.

    Returns:
        The study's name, and what it has shown in sentences; None after a dry run.

    Raises:
        UserError: For everything that can be found wrong before runs start.
    """
    if any(getattr(options, name) for name in SEARCH_ONLY):
        first, *others = (flag(name) for name in SEARCH_ONLY)
        raise UserError(
            f"{first}, {' and '.join(others)} are for searches: an ablation runs all of its arms "
            "and the seeds that it is given or needs."
        )
    changes = options.changes or {}
    changed = with_changes(ablation, changes)
    changed_fields = list(change_lines(ablation, changed, changes, scale))
    ablation = changed
    prepared = _prepare_datasets(ablation, scale, options)
    contexts = {name: part.context for name, part in prepared.items()}
    plan = AblationPlan(ablation, scale, contexts)
    show_plan(ablation.question, plan, list(prepared.values()), options, changed_fields)
    if options.dry_run:
        return None
    if ablation.costs:
        plan = dataclasses.replace(plan, costs=_network_costs(plan, prepared))
    with claim_study(plan, options) as study:
        address = environment.prepare(options.address)
        from sadcl.ray_backend import driver  # imports Ray, which then reads the environment

        placements = {name: part.placement for name, part in prepared.items()}
        witnesses = {name: part.witnesses for name, part in prepared.items()}
        driver.run_ablation(study, placements, address, witnesses, options.max_concurrent)
    report = ablation_reports.ablation_report(options.storage, plan.study)
    for dataset in report.datasets:
        lines = ablation_text.ablation_table(report, dataset)
        show_table(lines, title=f"{plan.study} on {dataset}", spare=report.components)
    sentences = [*ablation_text.ablation_notes(report), *ablation_text.ablation_sentences(report)]
    return plan.study, sentences


def _network_costs(
    plan: AblationPlan, prepared: Mapping[str, PreparedData]
) -> dict[str, dict[str, dict[str, float]]]:
    """What the network of each arm costs, by data set and arm."""
    return {
        name: {
            arm: network_cost(arm_config(part.context.base, changes), len(part.images.labels))
            for arm, changes in plan.arms.items()
        }
        for name, part in prepared.items()
    }


def _prepare_datasets(ablation: Ablation, scale: str, options: Options) -> dict[str, PreparedData]:
    """Read the data sets that have a folder, or the embedded ones if none has; by their names."""
    bases, roots = _bases_and_roots(ablation, scale, options.data_root)

    def arms(base: Config) -> list[Config]:
        return [arm_config(base, changes) for changes in ablation.arms_at(scale).values()]

    full = ablation.bases("full")
    datasets = {
        key: full.get(key, base).data.model_copy(update={"name": key})
        for key, base in bases.items()
    }
    check_free(ablation.name, scale, [(datasets[key], roots[key]) for key in bases], options)
    parts = [
        prepare_data(ablation.name, base, datasets[key], scale, roots[key], options, arms)
        for key, base in bases.items()
    ]
    name = study_name(ablation.name, scale, [part.context.base.data.name for part in parts])
    prepared = {part.images.name: part.of_study(name) for part in parts}
    if len(prepared) < len(parts):
        raise UserError(
            f"Some of the data sets {', '.join(bases)} of {ablation.name!r} are the same; there "
            f"are only {len(prepared)}: {', '.join(prepared)}. Scenes differ by data.scene_seed, "
            "which is part of their name."
        )
    return prepared


def _bases_and_roots(
    ablation: Ablation, scale: str, data_root: str | Mapping[str, str] | None
) -> tuple[dict[str, Config], Mapping[str, str | None]]:
    """The configuration and the folder of each data set that is run."""
    bases = ablation.bases(scale)
    if data_root is None:
        if not bases:
            raise _no_demo(ablation)
        return bases, dict.fromkeys(bases)
    datasets = list(ablation.bases("full"))
    roots = roots_of(datasets, data_root)
    for name in datasets:
        if name not in roots:
            banner(f"{name}: there is no --data-root {name}=DIR.", "LEFT OUT")
    if not bases or not roots:
        raise _no_demo(ablation)
    demo = next(iter(bases.values()))
    return {name: bases.get(name, demo) for name in roots}, roots


def _no_demo(ablation: Ablation) -> UserError:
    return UserError(
        f"The ablation {ablation.name!r} has no demo configuration: pass --data-root, or give it "
        "one."
    )
