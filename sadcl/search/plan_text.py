"""The plan of a study in sentences, as it is shown before a start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sadcl.console import count_text, short_names
from sadcl.search.ablation import AblationPlan
from sadcl.search.plan import Plan
from sadcl.search.space import space_text
from sadcl.search.until import MIN_PAIRS

MIN_IMAGES = 50
"""Fewer held-out or test images are warned of."""


def plan_lines(plan: Plan | AblationPlan) -> Iterator[str]:
    """Yield the plan of a study, line by line."""
    return _ablation_lines(plan) if isinstance(plan, AblationPlan) else _search_lines(plan)


def _search_lines(plan: Plan) -> Iterator[str]:
    search = plan.search
    for field, text in space_text(search.space_at(plan.scale)).items():
        yield f"  {field}: {text}"
    seeds = ", ".join(map(str, search.confirm_seeds))
    shared = (
        "one shared stage 1" if plan.shares_stage1 else "a stage 1 for each trial that changes it"
    )
    start = shared if plan.base.stage1.epochs else "stage 2 from model.start"
    start = start if plan.base.stage2.epochs else "one stage"
    trials = f"{plan.n_trials} trials"
    if plan.scale == "demo" and plan.n_trials == search.n_demo_trials != search.n_trials:
        trials += f" (n_demo_trials; n_trials = {search.n_trials} is for full scale)"
    if plan.num_settings and plan.num_settings < plan.n_trials:
        trials = f"{plan.num_settings} trials, which is all that the space holds"
    top = "the best" if search.confirm_top == 1 else f"the best {search.confirm_top}"
    stages = (plan.base.stage1, plan.base.stage2)
    most = "at most " if any(stage.patience for stage in stages) else ""
    if search.confirm_with:
        top += f", with {', '.join(f'{k} = {v}' for k, v in search.confirm_with.items())},"
    baselines = ("control" if name == "stage2" else name for name in search.baselines)
    runs = [start, " and ".join(baselines), trials]
    final = "one final run with the same changes" if search.confirm_with else "one final run"
    runs += [f"{top} again over seeds {seeds}", final] if search.confirm_seeds else []
    lengths = " + ".join(str(stage.epochs) for stage in stages if stage.epochs)
    yield f"  {', '.join(filter(None, runs))}; {most}{lengths} epochs each"
    pruner = f"stopped early by {search.pruner}" if search.pruner else "no early stopping"
    limits = [
        f"at most {limit:g} {unit}"
        for limit, unit in (
            (search.max_epochs, "epochs"),
            (search.max_hours, "hours of training"),
        )
        if limit is not None
    ]
    yield f"  {', '.join([f'sampler {search.sampler}', pruner, *limits])}"
    if 0 < len(search.confirm_seeds) < MIN_PAIRS and "stage2" in search.baselines:
        seeds_text = count_text(len(search.confirm_seeds), "seed")
        yield (
            f"  WARNING: {seeds_text} of the confirmation cannot show whether the best setting "
            f"gains anything: fewer than {MIN_PAIRS} pairs decide nothing"
        )


def _ablation_lines(plan: AblationPlan) -> Iterator[str]:
    ablation = plan.ablation
    arms = plan.arms
    shared = _shared_changes(list(arms.values())) if len(arms) > 1 else {}
    names = short_names({field for changes in arms.values() for field in changes})
    if shared:
        yield f"  all arms: {_changes_text(shared, names)}"
    for arm, changes in arms.items():
        role = " (the others are compared with it)" if arm == ablation.baseline else ""
        own = {field: value for field, value in changes.items() if field not in shared}
        base = "nothing else" if shared else "the unchanged base"
        yield f"  {arm}{role}: {_changes_text(own, names) or base}"
    if ablation.until is not None:
        yield from _until_lines(plan)
        return
    trials = plan.planned_trials()
    stages = len({trial.stage1.key for trial in trials if trial.stage1 is not None})
    yield (
        f"  {len(ablation.arms)} arms over seeds {', '.join(map(str, ablation.seed_numbers))} on "
        f"{', '.join(plan.contexts)}: {len(trials)} runs, {stages} of them a stage 1"
    )
    if len(ablation.seed_numbers) < MIN_PAIRS:
        seeds_text = count_text(len(ablation.seed_numbers), "seed")
        yield (
            f"  WARNING: {seeds_text} cannot answer anything: fewer than {MIN_PAIRS} pairs decide "
            "nothing. seeds=Until(...) adds as many as are needed."
        )


def _shared_changes(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all arms change to the same value."""
    first, *others = arms
    return {
        field: value
        for field, value in first.items()
        if all(field in other and other[field] == value for other in others)
    }


def _changes_text(changes: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return ", ".join(f"{names[field]} = {value}" for field, value in changes.items())


def _until_lines(plan: AblationPlan) -> Iterator[str]:
    until = plan.ablation.until
    assert until is not None
    yield (
        f"  {len(plan.arms)} arms over seeds 1, 2, 3, ... on {', '.join(plan.contexts)}: {until}"
    )
    yield (
        f"  at least {plan.least_runs(()):,} runs and at most {plan.remaining_work(()).runs:,} in "
        "all, each stage 1 among them; intervals are corrected for looking after every seed"
    )


def image_warnings(num_images: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Warn of data sets with so few images that a figure changes by points with a single image.

    Args:
        num_images: the number of images by data set, and by split.
    """
    for dataset, counts in num_images.items():
        for split, name in (("val", "held-out"), ("test", "test")):
            if 0 < counts.get(split, 0) < MIN_IMAGES:
                yield (
                    f"WARNING: {dataset} has only {counts[split]} {name} images. With fewer than "
                    f"{MIN_IMAGES}, single images move the figures by points, in all seeds alike, "
                    "which no interval over seeds shows."
                )
