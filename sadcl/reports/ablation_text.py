"""An ablation in words: the layout of the paper's Table 7, what is shown, what is not, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from sadcl.reports.ablation import AblationReport
from sadcl.reports.statistics import ALPHA, Effect

SPLITS = {"test": "test images", "val": "held-out training images"}
MADE_BY = {
    "test": "which every run looked at once and which chose nothing",
    "val": "which chose the epoch of every run: optimistic, though for all arms alike",
}


def ablation_table(report: AblationReport, dataset: str) -> list[dict[str, str]]:
    """One line an arm: its components, its figure, and what sets it apart from the baseline."""
    published = {
        arm: figures[dataset] for arm, figures in report.published.items() if dataset in figures
    }
    same = len({len(effect.seeds) for effect in report.effects}) == 1
    lines = []
    for effect in report.on(dataset):
        has = report.marks.get(effect.arm, ())
        line = {"arm": effect.arm, **{name: "✓" * (name in has) for name in report.components}}
        if not same:
            line["seeds"] = str(len(effect.seeds))
        line |= {
            report.quantity: _mean(effect),
            "difference": difference(effect),
            "p (Holm)": _p(effect),
        }
        if published:
            line["published"] = f"{published[effect.arm]:.1f}" if effect.arm in published else ""
        lines.append(line)
    return lines


def runs_without_figure(report: AblationReport) -> list[dict[str, Any]]:
    """The runs without a figure: failed, unfinished, missing; one row each."""
    return [
        {
            "dataset": effect.dataset,
            "arm": effect.arm,
            "seed": gap.seed,
            "what": gap.why,
            "key": gap.key,
            "cause": gap.cause,
        }
        for effect in report.effects
        for gap in effect.gaps
    ]


def ablation_notes(report: AblationReport) -> Iterator[str]:
    """What the columns mean."""
    if report.scale != "full":
        yield "Demo scale: these figures prove the path, not the science, and do not stand beside the paper's."
    yield (
        f"{report.quantity} in percent on the {SPLITS[report.split]}, {MADE_BY[report.split]}; mean ± standard "
        f"deviation over {count_words([len(effect.seeds) for effect in report.effects])} an arm."
    )
    yield (
        f"The difference is to {report.baseline}, in percentage points over the seeds that both have, with the 95 % "
        "interval (Student's t) of that difference by itself; p is of the paired t test, corrected by Holm for all arms that "
        "are tested on the data set, and decides."
    )
    if any(report.published.values()):
        yield "The published figures are single runs whose epoch was chosen on the test images."


def ablation_sentences(report: AblationReport) -> Iterator[str]:
    """What is shown, what is not, and what was left out; an arm a sentence."""
    if not report.datasets:
        yield "No arm of the study has a run yet."
    for dataset in report.datasets:
        effects = report.on(dataset)
        reasons = [gap.why for effect in effects for gap in effect.gaps]
        total = len(reasons) + sum(len(effect.seeds) for effect in effects)
        if not total:
            yield f"On {dataset}, no arm has a run yet."
            continue
        yield from (_sentence(report, effect) for effect in effects if effect.verdict != "baseline")
        counts = ", ".join(f"{reasons.count(why)} {why}" for why in dict.fromkeys(reasons))
        if counts:
            yield f"On {dataset}, {len(reasons)} of {total} runs have no figure and were left out: {counts}."
    if report.others:
        yield f"Rows of arms that are not in the study were left out: {', '.join(report.others)}."


def _sentence(report: AblationReport, effect: Effect) -> str:
    start, gain = (
        f"On {effect.dataset}, {effect.arm} against {report.baseline}:",
        f"{effect.difference:+z.2f} {report.quantity}",
    )
    partly = f" {len(effect.unpaired)} of its {len(effect.seeds)} seeds have no partner in {report.baseline}."
    partly *= bool(effect.unpaired and effect.pairs)
    if effect.verdict == "no pair":
        return f"{start} no seed has a figure of both, so nothing is compared."
    if effect.verdict == "one seed":
        return f"{start} {gain} in one seed, which shows nothing.{partly}"
    if effect.verdict == "no spread":
        same = f"in each of {len(effect.pairs)} seeds to the last digit, which independent runs do not give: not tested"
        return f"{start} {gain} {same}.{partly}"
    verdict = {"gain": "a gain", "loss": "a loss"}.get(effect.verdict, effect.verdict)
    return f"{start} {gain} ({_band(effect)}), p {equals(effect)} corrected: {verdict}.{partly}"


def count_words(numbers: Sequence[int]) -> str:
    """So many seeds."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return ("1 seed" if high == 1 else f"{high} seeds") if low == high else f"{low} to {high} seeds"


def difference(effect: Effect) -> str:
    """In percentage points, with its interval or what stands in its place."""
    if not effect.pairs:
        return effect.verdict
    partly = f", {len(effect.pairs)} pairs" if effect.unpaired and len(effect.pairs) > 1 else ""
    inside = effect.verdict if effect.verdict in ("one seed", "no spread") else _band(effect)
    return f"{effect.difference:+z.2f} ({inside}{partly})"


def _mean(effect: Effect) -> str:
    if not effect.seeds:
        return ""
    return f"{effect.mean:.2f}" if math.isnan(effect.sd) else f"{effect.mean:.2f} ± {effect.sd:.2f}"


def _band(effect: Effect) -> str:
    low, high = (
        effect.difference - effect.difference_half,
        effect.difference + effect.difference_half,
    )
    return f"{low:+z.2f} to {high:+z.2f}"


def _p(effect: Effect) -> str:
    if math.isnan(effect.corrected):
        return ""
    if effect.corrected < 0.001:
        return "<0.001"
    return (
        f"<{ALPHA:g}"
        if effect.corrected < ALPHA <= round(effect.corrected, 3)
        else f"{effect.corrected:.3f}"
    )


def equals(effect: Effect) -> str:
    """Its corrected p with the sign between."""
    text = _p(effect)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"
