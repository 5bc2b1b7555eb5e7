"""Run a study from its plan to its summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sadcl.console import banner, print_text, show_table
from sadcl.errors import TrialFailed, UserError, install_hook
from sadcl.launch.ablation import run_ablation
from sadcl.launch.comparison import run_comparison
from sadcl.launch.datasets import PreparedData, roots_of, scale_of
from sadcl.launch.next_steps import print_study_steps
from sadcl.launch.options import Options, takes_options
from sadcl.launch.outcome import StudyResult
from sadcl.launch.search import best_setting_of, prepare_search, run_search
from sadcl.ray_backend import environment
from sadcl.reports import search_summary
from sadcl.search import Ablation, Comparison, Plan, Search
from sadcl.study import record
from sadcl.study.process import large_pages

Study = Search | Ablation | Comparison


@takes_options(Options)
@large_pages()
def run(study: Study | Sequence[Search], options: Options) -> StudyResult | None:
    """Run a study, or what is left of it: the same call resumes one that was interrupted.

    Args:
        study: What to find out. Of several searches each starts with the best settings of those
            before it.
        **options: those of this start.

    Returns:
        The study's name, best trial and rows of the trials table; None after a dry run.

    Raises:
        UserError: For everything that can be found wrong before trials start, and where no trial
            succeeds.
    """
    try:
        with environment.away_in_ray_job():
            if isinstance(study, Study):
                if options.name is not None:
                    study = dataclasses.replace(study, name=options.name)
                return _run_study(study, options)
            if options.name is not None:
                raise UserError("--name is not possible: each of the searches has its own.")
            return _run_searches(list(study), options)
    except (UserError, TrialFailed):
        install_hook()  # Ray puts back the excepthook of when it was imported
        raise


def _run_study(study: Study, options: Options) -> StudyResult | None:
    scale = _begin(study.name, options)
    if isinstance(study, Comparison):
        compared = run_comparison(study, scale, options)
        return None if compared is None else _finish(*compared, options)
    if isinstance(study, Ablation):
        outcome = run_ablation(study, scale, options)
        if outcome is None:
            return None
        name, sentences = outcome
        return _finish([name], sentences, options)
    dataset: str = study.base.data.name
    root = roots_of([dataset], options.data_root).get(dataset)
    plan, prepared = prepare_search(study, scale, root, options)
    if options.dry_run:
        return None
    rows, sentences = run_search(plan, prepared, options)
    show_table(rows, title=search_summary.TITLE)
    return _finish([plan.study], sentences, options)


def _begin(name: str, options: Options) -> str:
    """Find out the scale, say so loudly where it is a demo without data, and check the storage."""
    scale = scale_of(options.scale, options.data_root)
    if options.data_root is None:
        banner(f"No --data-root: {name} trains a small network on drawn scenes.", "DEMO SCALE")
    environment.check_storage(options.storage, write=not options.dry_run)
    return scale


def _run_searches(searches: list[Search], options: Options) -> StudyResult | None:
    """Check all searches, then run one after the other with the best settings of those before."""
    if "data.name" in (options.changes or {}):
        raise UserError("--set data.name is not possible: each of the searches has its own.")
    scale = _begin("each search", options)
    roots = roots_of([search.base.data.name for search in searches], options.data_root)
    ready: list[tuple[Plan, PreparedData]] = []
    for search in searches:
        dataset = search.base.data.name
        if roots and dataset not in roots:
            banner(f"{search.name}: there is no --data-root {dataset}=DIR.", "LEFT OUT")
        else:
            ready.append(prepare_search(search, scale, roots.get(dataset), options))
    if options.dry_run:
        return None
    finished: dict[str, Search] = {}
    failures = []
    for plan, prepared in ready:
        try:
            run_search(_with_best_settings(plan, finished, options), prepared, options)
        except UserError as error:  # the other searches do not depend on it
            failures.append(f"{plan.study}: {error}")
            banner(str(error), f"{plan.study} IS INCOMPLETE")
        finished[plan.study] = plan.search
    overview = search_summary.overview(record.all_rows(options.storage), finished)
    show_table(overview, title=search_summary.OVERVIEW_TITLE)
    if failures:
        raise UserError("\n".join(failures))
    for study in finished:
        print_text(f"{study}:")
        print_study_steps(study, options.storage, options.data_root)
    return StudyResult.read(finished, options.storage)


def _with_best_settings(plan: Plan, finished: Mapping[str, Search], options: Options) -> Plan:
    """Let a search first try the best settings of earlier searches."""
    found = (
        best_setting_of(study, earlier, plan.search, plan.scale, options.storage)
        for study, earlier in finished.items()
    )
    settings = {str(setting): setting for setting in found if setting}
    if settings:
        print_text(f"{plan.search.name} first tries the best settings of the searches before it.")
    return dataclasses.replace(plan, warm_start=tuple(settings.values()))


def _finish(names: Sequence[str], sentences: Sequence[str], options: Options) -> StudyResult:
    """Print what a study has reached and how to continue; the first name is its own."""
    for sentence in sentences:
        print_text(sentence)
    print_study_steps(names[0], options.storage, options.data_root)
    return StudyResult.read(names, options.storage)
