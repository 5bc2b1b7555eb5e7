"""The plan of a study in sentences, as it is shown before a start."""

from __future__ import annotations

from collections.abc import Iterator

from sadcl.search.ablation import AblationPlan
from sadcl.search.plan import Plan
from sadcl.search.space import space_text


def plan_lines(plan: Plan | AblationPlan) -> Iterator[str]:
    """Yield the plan of a study, line by line."""
    return _ablation_lines(plan) if isinstance(plan, AblationPlan) else _search_lines(plan)


def _search_lines(plan: Plan) -> Iterator[str]:
    search = plan.search
    for field, text in space_text(search.space_at(plan.scale)).items():
        yield f"  {field}: {text}"
    seeds = ", ".join(map(str, search.confirm_seeds))
    start = "one shared stage 1" if plan.base.stage1.epochs else "stage 2 from model.start"
    start = start if plan.base.stage2.epochs else "one stage"
    trials = f"{plan.n_trials} trials"
    if plan.num_settings and plan.num_settings < plan.n_trials:
        trials = f"{plan.num_settings} trials, which is all that the space holds"
    top = "the best" if search.confirm_top == 1 else f"the best {search.confirm_top}"
    stages = (plan.base.stage1, plan.base.stage2)
    most = "at most " if any(stage.patience for stage in stages) else ""
    if search.confirm_with:
        top += f", with {', '.join(f'{k} = {v}' for k, v in search.confirm_with.items())},"
    runs = [start, " and ".join(search.baselines), trials]
    runs += [f"{top} again over seeds {seeds}", "one final run"] if search.confirm_seeds else []
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


def _ablation_lines(plan: AblationPlan) -> Iterator[str]:
    ablation = plan.ablation
    for arm, changes in plan.arms.items():
        role = " (the others are compared with it)" if arm == ablation.baseline else ""
        text = ", ".join(f"{k} = {v}" for k, v in changes.items()) or "the unchanged base"
        yield f"  {arm}{role}: {text}"
    trials = plan.planned_trials()
    shared = len({trial.stage1.key for trial in trials if trial.stage1 is not None})
    yield (
        f"  {len(ablation.arms)} arms over seeds {', '.join(map(str, ablation.seeds))} on "
        f"{', '.join(plan.contexts)}: {len(trials)} runs, {shared} of them a stage 1"
    )
