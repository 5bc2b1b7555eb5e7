"""An ablation in words: the table in the layout of the paper's Table 7, its notes and findings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from sadcl.reports.ablation import AblationReport, Software
from sadcl.reports.arm_costs import COST_NOTE, ArmCost, cost_cells
from sadcl.reports.statistics import ALPHA, Effect, Verdict
from sadcl.results.gradients import IDLE

SPLITS = {"test": "test images", "val": "held-out training images"}
SPLIT_NOTES = {
    "test": "on which each run was evaluated once and which chose nothing",
    "val": "which also chose each run's epoch, so that all arms alike are optimistic",
}
DEMO_NOTE = "Demo scale: these figures only show that everything works."
VERDICT_TEXTS = {
    Verdict.GAIN: "a significant gain",
    Verdict.LOSS: "a significant loss",
    Verdict.NOT_SIGNIFICANT: "no significant difference",
}


def ablation_table(report: AblationReport, dataset: str) -> list[dict[str, str]]:
    """Format the arms on one data set, one row each: components, figure, effect, published."""
    published = {
        arm: figures[dataset] for arm, figures in report.published.items() if dataset in figures
    }
    have_equal_seeds = len({len(effect.seeds) for effect in report.effects}) == 1
    rows = []
    for effect in report.on(dataset):
        marks = report.marks.get(effect.arm, ())
        row = {"arm": effect.arm, **{name: "✓" * (name in marks) for name in report.components}}
        if not have_equal_seeds:
            row["seeds"] = str(len(effect.seeds))
        row[report.quantity] = _mean(effect)
        if report.references:
            row["compared with"] = effect.reference
        row |= {
            "difference": difference_text(effect),
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
        f"mean ± standard deviation over {seeds} per arm."
    )
    yield (
        f"Differences from {report.compared_with} are in percentage points over the seeds that "
        "both arms have; each 95 % interval (Student's t) is for that difference alone. "
        "Significance is decided by p, from the two-sided paired t test, corrected by Holm over "
        "all arms tested on the data set."
    )
    if report.costs:
        yield COST_NOTE
    if any(report.published.values()):
        yield "The published figures are single runs whose epoch was chosen on the test images."


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
        for effect in effects:
            if effect.verdict != Verdict.BASELINE:
                yield _sentence(report, effect)
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
    start = f"On {effect.dataset}, {effect.arm} compared with {effect.reference}:"
    size = f"{effect.difference:+z.2f} {report.quantity}"
    unpaired = ""
    if effect.unpaired and effect.pairs:
        verb = "has" if len(effect.unpaired) == 1 else "have"
        unpaired = (
            f" {len(effect.unpaired)} of its {len(effect.seeds)} seeds {verb} no counterpart in "
            f"{effect.reference}."
        )
    if effect.verdict == Verdict.NO_PAIR:
        return f"{start} no seed has a figure for both arms, so they cannot be compared."
    if effect.verdict == Verdict.ONE_SEED:
        return f"{start} {size} in a single seed, which cannot be tested.{unpaired}"
    if effect.verdict == Verdict.NO_SPREAD:
        return (
            f"{start} {size}, identical to the last digit in all {len(effect.pairs)} seeds, which "
            f"independent runs do not produce: not tested.{unpaired}"
        )
    return (
        f"{start} {size} ({interval_text(effect)}), corrected p {p_comparison(effect)}: "
        f"{VERDICT_TEXTS[effect.verdict]}.{unpaired}"
    )


def seeds_text(counts: Sequence[int]) -> str:
    """Format numbers of seeds, for example ``5 seeds`` or ``2 to 5 seeds``."""
    low, high = min(counts, default=0), max(counts, default=0)
    return ("1 seed" if high == 1 else f"{high} seeds") if low == high else f"{low} to {high} seeds"


def difference_text(effect: Effect) -> str:
    """Format a difference in percentage points with its interval, or why there is none."""
    if not effect.pairs:
        return effect.verdict.value
    is_untestable = effect.verdict in (Verdict.ONE_SEED, Verdict.NO_SPREAD)
    inside = effect.verdict.value if is_untestable else interval_text(effect)
    if effect.unpaired and len(effect.pairs) > 1:
        inside += f", {len(effect.pairs)} pairs"
    return f"{effect.difference:+z.2f} ({inside})"


def interval_text(effect: Effect) -> str:
    """Format the bounds of the 95 % interval of a difference."""
    low, high = effect.difference_interval
    return f"{low:+z.2f} to {high:+z.2f}"


def p_text(effect: Effect) -> str:
    """Format the corrected p-value; empty where nothing was tested.

    A value below the significance level is never rounded up to it.
    """
    if math.isnan(effect.p_corrected):
        return ""
    if effect.p_corrected < 0.001:
        return "<0.001"
    if effect.p_corrected < ALPHA <= round(effect.p_corrected, 3):
        return f"<{ALPHA:g}"
    return f"{effect.p_corrected:.3f}"


def p_comparison(effect: Effect) -> str:
    """Format the corrected p-value after its sign, for example ``= 0.123`` or ``< 0.001``."""
    text = p_text(effect)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"


def _mean(effect: Effect) -> str:
    if not effect.seeds:
        return ""
    return f"{effect.mean:.2f}" if math.isnan(effect.sd) else f"{effect.mean:.2f} ± {effect.sd:.2f}"
