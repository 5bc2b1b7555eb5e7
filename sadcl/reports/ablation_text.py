"""An ablation in words: the table in the layout of the paper's Table 7, its notes and findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sadcl.reports.ablation import AblationReport, Software
from sadcl.reports.arm_costs import COST_NOTE, ArmCost, cost_cells
from sadcl.reports.effect_text import (
    SPLITS,
    arm_text,
    difference_text,
    interval_text,
    is_baseline_name,
    p_comparison,
    p_text,
    plus_minus,
    seeds_text,
    verdict_text,
)
from sadcl.reports.statistics import Effect, Verdict, least_pairs
from sadcl.results.gradients import IDLE
from sadcl.search.plan_text import image_warnings
from sadcl.search.until import Stop

SPLIT_NOTES = {
    "test": "on which each run was evaluated once and which chose nothing",
    "val": "which also chose each run's epoch, so that all arms alike are optimistic",
}
DIFFERENCE = "difference (95 %, Bonferroni)"
"""The column of the difference from the arm that is compared with."""
DEMO_NOTE = "Demo scale: these figures only show that everything works."
STOP_TEXTS = {
    Stop.SIGN: "the sign is settled",
    Stop.NARROW: "the interval is narrow enough",
    Stop.LIMIT: "the limit is reached, and the difference is not settled",
}


def ablation_table(report: AblationReport, dataset: str) -> list[dict[str, str]]:
    """Format the arms on one data set, one row each: components, figure, effect, published."""
    published = {
        arm: figures[dataset] for arm, figures in report.published.items() if dataset in figures
    }
    # the word baseline would be read as an arm of that name
    reference = {Verdict.BASELINE: "reference"} if any(map(is_baseline_name, report.arms)) else {}
    have_equal_seeds = len({len(effect.seeds) for effect in report.effects}) == 1
    rows = []
    for effect in report.on(dataset):
        marks = report.marks.get(effect.arm, ())
        row = {"arm": effect.arm, **{name: "✓" * (name in marks) for name in report.components}}
        if report.until is not None or not have_equal_seeds:
            row["seeds"] = str(len(effect.seeds))
        if report.arm_seeds:
            row["stopped"] = _stop_cell(report, effect)
        row[f"{report.quantity} ± 95 %"] = (
            plus_minus(effect.mean, effect.half_width) if effect.seeds else ""
        )
        if report.references:
            row["compared with"] = effect.reference
        row |= {
            DIFFERENCE: reference.get(effect.verdict) or difference_text(effect),
            "p (Holm)": p_text(effect),
        }
        if published:
            row["published"] = f"{published[effect.arm]:.1f}" if effect.arm in published else ""
        if report.costs:
            row |= cost_cells(report.costs.get((dataset, effect.arm), ArmCost()))
        rows.append(row)
    return rows


def runs_without_figure(report: AblationReport) -> list[dict[str, Any]]:
    """List the runs without a figure (failed, unfinished or missing), one row each."""
    return [
        {
            "dataset": effect.dataset,
            "arm": effect.arm,
            "seed": missing.seed,
            "reason": missing.reason,
            "key": missing.key,
            "cause": missing.cause,
        }
        for effect in report.effects
        for missing in effect.missing
    ]


def ablation_notes(report: AblationReport, *, with_scale: bool = True) -> Iterator[str]:
    """Explain the columns of the table.

    Args:
        with_scale: whether to state where the scale is not full.
    """
    if with_scale and report.scale != "full":
        yield f"{DEMO_NOTE} They must not be compared with the paper's."
    seeds = seeds_text([len(effect.seeds) for effect in report.effects])
    yield (
        f"{report.quantity} in percent on the {SPLITS[report.split]}, {SPLIT_NOTES[report.split]}; "
        f"mean over {seeds} per arm, ± half of its 95 % interval (Student's t), which is for that "
        "mean alone."
    )
    yield (
        f"Differences from {report.compared_with} are in percentage points over the seeds that "
        "both arms have. With a probability of 95 % all of their intervals on a data set hold "
        "(Student's t, corrected by Bonferroni for the number of arms). Significance is decided by "
        "p, from the two-sided paired t test, corrected by Holm over the same arms, which is a "
        "little less strict than the interval."
    )
    if report.components:
        yield "✓: the arm has this component."
    yield from _until_notes(report)
    if report.costs:
        yield COST_NOTE
    if any(report.published.values()):
        yield "The published figures are single runs whose epoch was chosen on the test images."


def _until_notes(report: AblationReport) -> Iterator[str]:
    """Explain how seeds were added until the differences were settled."""
    if report.until is None:
        if report.former_bounds:
            yield (
                "WARNING: this study looked after every seed before its seeds were fixed. Its p "
                "and intervals do not count that: more than 5 % of such studies find a difference "
                "where there is none."
            )
        return
    yield (
        f"Seeds were added as needed: {report.until}. The differences in test mAP (held-out mAP "
        "where nothing is tested) decided that. Intervals and p are corrected for looking after "
        "every seed (repeated confidence intervals, alpha spending by Kim and DeMets)."
    )
    if report.former_bounds:
        bounds = [
            f"{until.at_least} to {until.at_most}"
            for until in (*report.former_bounds, report.until)
        ]
        rate = 5 * len(bounds)
        yield (
            f"WARNING: the bounds were changed after looking ({', then '.join(bounds)} seeds). "
            f"Each has an error rate of 5 %, so that together up to {rate} % of such "
            "studies find a difference where there is none."
        )


def ablation_sentences(report: AblationReport) -> Iterator[str]:
    """State the result of each arm in a sentence, then what was left out."""
    if not report.datasets:
        yield "No arm of the study has a run yet."
    for dataset in report.datasets:
        effects = report.on(dataset)
        reasons = [missing.reason for effect in effects for missing in effect.missing]
        total = len(reasons) + sum(len(effect.seeds) for effect in effects)
        if not total:
            yield f"On {dataset}, no arm has a run yet."
            continue
        compared = [effect for effect in effects if effect.verdict != Verdict.BASELINE]
        yield from undecided(dataset, compared)
        for effect in compared:
            yield _sentence(report, effect)
        yield from image_warnings({dataset: report.num_images.get(dataset, {})})
        yield from _gradient_sentences(report, dataset)
        if reasons:
            counts = ", ".join(f"{reasons.count(name)} {name}" for name in dict.fromkeys(reasons))
            yield (
                f"On {dataset}, {len(reasons)} of {total} runs have no figure and were left out: "
                f"{counts}."
            )
    if report.removed_arms:
        yield (
            "Rows of arms that are no longer in the study were left out: "
            f"{', '.join(report.removed_arms)}."
        )


def undecided(dataset: str, compared: list[Effect]) -> Iterator[str]:
    """State that no arm has enough pairs for an answer; nothing where one has."""
    if compared and all(
        effect.verdict in (Verdict.TOO_FEW, Verdict.NO_PAIR) for effect in compared
    ):
        pairs = seeds_text([len(effect.pairs) for effect in compared])
        least = least_pairs(compared[0].until)
        yield (
            f"On {dataset}, this study cannot answer anything yet: the arms have {pairs} in common "
            f"with what they are compared with, and fewer than {least} decide nothing."
        )


def _stop_cell(report: AblationReport, effect: Effect) -> str:
    state = report.arm_seeds.get((effect.dataset, effect.arm))
    return "" if state is None else str(state.stop or "not yet")


def _gradient_sentences(report: AblationReport, dataset: str) -> Iterator[str]:
    """State how strongly the contrasts of each arm pull, and which of them hardly does."""
    arms = {
        arm: report.gradient_shares[dataset, arm]
        for arm in report.arms
        if (dataset, arm) in report.gradient_shares
    }
    if not arms:
        return
    texts = [
        f"{arm} {' and '.join(f'{100 * share:.1f} ({term})' for term, share in shares.items())}"
        for arm, shares in arms.items()
    ]
    yield (
        f"On {dataset}, the contrasts' gradients at the label features, in percent of the "
        f"classification loss's: {'; '.join(texts)}."
    )
    for arm, shares in arms.items():
        for term in [term for term, share in shares.items() if share < IDLE]:
            yield (
                f"WARNING: on {dataset}, the {term} contrast of {arm} is switched on but hardly "
                f"pulls: {100 * shares[term]:.1f} % of the classification loss's gradient. A "
                f"larger loss.{term}_weight or another loss.{term}_reduction would make it count."
            )


def software_note(report: AblationReport) -> str:
    """Name the versions of this package that made the runs; empty where no row has one."""
    if not report.software:
        return ""
    return f"Runs made with {'; '.join(software_text(version) for version in report.software)}."


def software_text(software: Software) -> str:
    """Format a version, for example ``sadcl 0.1.0 (sources 1f2e, revision 3d4c+)``."""
    details = {"sources": software.code, "revision": software.revision}
    inside = ", ".join(f"{name} {value}" for name, value in details.items() if value)
    return f"sadcl {software.version}".strip() + (f" ({inside})" if inside else "")


def _sentence(report: AblationReport, effect: Effect) -> str:
    start = (
        f"On {effect.dataset}, {arm_text(effect.arm)} compared with {arm_text(effect.reference)}:"
    )
    size = f"{effect.difference:+z.2f} {report.quantity}"
    unpaired = ""
    if effect.unpaired and effect.pairs:
        verb = "has" if len(effect.unpaired) == 1 else "have"
        unpaired = (
            f" {len(effect.unpaired)} of its {len(effect.seeds)} seeds {verb} no counterpart in "
            f"{effect.reference}."
        )
    if effect.verdict == Verdict.NO_PAIR:
        return f"{start} {verdict_text(effect)}."
    end = f"{unpaired}{_stop_text(report, effect)}"
    if effect.verdict in (Verdict.TOO_FEW, Verdict.NO_SPREAD):
        return f"{start} {size}, {verdict_text(effect)}.{end}"
    return (
        f"{start} {size} ({interval_text(effect)}), corrected p {p_comparison(effect)}: "
        f"{verdict_text(effect)}.{end}"
    )


def _stop_text(report: AblationReport, effect: Effect) -> str:
    """State after how many seeds an arm stopped and why, where seeds were added."""
    state = report.arm_seeds.get((effect.dataset, effect.arm))
    if state is None:
        return ""
    pairs = seeds_text([len(effect.pairs)])
    if state.stop is None:
        return f" It has {pairs} and needs more."
    return f" Stopped after {pairs}: {STOP_TEXTS[state.stop]}."
