"""The answer of a study in a sentence, and the banners that a reader has to see first."""

from __future__ import annotations

import math

from sadcl.reports.ablation import AblationReport
from sadcl.reports.ablation_text import DEMO_NOTE, undecided
from sadcl.reports.effect_text import (
    SPLITS,
    arm_text,
    interval_text,
    pairs_text,
    plus_minus,
    seeds_text,
    verdict_text,
)
from sadcl.reports.page.study import TUNED, StudyData, complete_runs
from sadcl.reports.statistics import Effect, Verdict
from sadcl.search.plan_text import image_warnings
from sadcl.search.ranking import ranked_trials


def banners(study: StudyData) -> list[str]:
    """State what a reader has to know before anything else."""
    texts = [_progress_banner(study), _status_banner(study)]
    if study.kind == "search" and len(study.main_runs) == 1:
        texts.append("There is only one trial: nothing was searched or compared among trials.")
    is_confirmed = bool(complete_runs(study.phase("confirm", "tuned")))
    if study.kind == "search" and study.chosen_run() is not None and not is_confirmed:
        texts.append(
            "Not confirmed: the best trial was chosen on the images that its figure comes from, "
            "which is optimistic."
        )
    if not study.is_full_scale:
        texts.append(f"{DEMO_NOTE} They must not be compared with the paper's.")
    texts += image_warnings(study.description.get("images") or {})
    return [text for text in texts if text]


def _runs_noun(study: StudyData) -> str:
    return "trials" if study.kind == "search" else "runs"


def _is_pending(study: StudyData) -> bool:
    return any(row["status"] == "running" for row in study.rows)


def _progress_banner(study: StudyData) -> str:
    """State how many runs have ended, where the study has not; else nothing."""
    runs = study.main_runs
    num_ended = sum(row["status"] != "running" for row in runs)
    ended = f"{num_ended} of {study.planned or len(runs)} {_runs_noun(study)} have ended."
    if not study.rows:
        return "No run of this study has started."
    if _is_pending(study):
        return f"Still running, or interrupted: {ended} This page covers only those."
    is_short = study.planned is not None and len(runs) < study.planned
    if is_short and not study.phase("confirm", "tuned"):
        return f"Not finished: {ended} The command that started the study resumes it."
    return ""


def _status_banner(study: StudyData) -> str:
    """State what became of the runs, where none is complete; else nothing."""
    statuses = [row["status"] for row in study.main_runs]
    if not statuses or "complete" in statuses or _is_pending(study):
        return ""
    counts = ", ".join(f"{statuses.count(name)} {name}" for name in sorted(set(statuses)))
    return f"None of the {_runs_noun(study)} is complete: {counts}."


def answer(study: StudyData, report: AblationReport | None) -> str:
    """State the result of a study in one sentence, for each data set of an ablation."""
    if not complete_runs(study.main_runs):
        return "There is no answer yet: no run is complete."
    if study.kind == "ablation" and report is not None:
        return " ".join(_ablation_answer(report, dataset) for dataset in report.datasets)
    effects = report.effects if report is not None else ()
    tuned = next((effect for effect in effects if effect.arm == TUNED), None)
    if report is None or tuned is None or not tuned.seeds:
        return _unconfirmed_answer(study)
    mean = plus_minus(tuned.mean, tuned.half_width)
    interval = " (± half of the 95 % interval)" if "±" in mean else ""
    start = (
        f"The best setting reaches {mean} % mAP{interval} on the {SPLITS[report.split]} "
        f"over {_count(len(tuned.seeds), 'fresh seed')}"
    )
    if not tuned.pairs:
        return f"{start}; the control has no run of these seeds, so they cannot be compared."
    return f"{start}; compared with {study.control}: {_difference(tuned)}: {verdict_text(tuned)}."


def _unconfirmed_answer(study: StudyData) -> str:
    """State the best held-out figure of a study that has no comparison over fresh seeds."""
    noun = "complete trial" if study.kind == "search" else "complete run"
    runs = complete_runs(study.main_runs)
    best = next(iter(ranked_trials(runs)), None)
    result = (
        f"reaches {best['val_mAP']:.2f} % mAP on the held-out images that chose it"
        if best
        else "has no held-out mAP"
    )
    return (
        f"The best of {_count(len(runs), noun)} {result}; without a comparison over fresh seeds, "
        "no conclusion can be drawn."
    )


def _ablation_answer(report: AblationReport, dataset: str) -> str:
    compared = [effect for effect in report.on(dataset) if effect.verdict != Verdict.BASELINE]
    if nothing := list(undecided(dataset, compared)):
        return nothing[0]
    significant = {
        verdict: [effect for effect in compared if effect.verdict == verdict]
        for verdict in (Verdict.GAIN, Verdict.LOSS)
    }
    findings = [
        f"a significant {verdict} for "
        + ", ".join(
            f"{arm_text(effect.arm)} ({effect.difference:+z.2f} points, {interval_text(effect)})"
            for effect in effects
        )
        for verdict, effects in significant.items()
        if effects
    ]
    others = [effect.arm for effect in compared if effect.verdict == Verdict.NOT_SIGNIFICANT]
    untested = sum(math.isnan(effect.p_corrected) for effect in compared)
    if others:
        which = (
            arm_text(others[0])
            if len(others) == 1
            else f"{len(others)}{' other' if findings else ''} arms"
        )
        if len(others) == len(compared) > 1:
            which = f"any of {len(others)} arms"
        findings.append(f"no significant difference for {which}")
    if untested:
        findings.append(f"{_count(untested, 'arm')} could not be tested")
    seeds = seeds_text([len(effect.pairs) for effect in compared])
    start = f"compared with {arm_text(report.baseline)}"
    if report.references:
        start = "each arm compared with its own reference"
    return (
        f"On {dataset}, {start} over {seeds} (95 % intervals for all "
        f"arms together): {'; '.join(findings) or 'no other arm'}."
    )


def _difference(effect: Effect) -> str:
    is_tested = not math.isnan(effect.p)
    interval = f", {interval_text(effect, '95 % interval ')}" if is_tested else ""
    return f"{effect.difference:+z.2f} points{interval} over {pairs_text(effect)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
