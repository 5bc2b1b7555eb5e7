"""Gains by label in words: tables of labels and of groups, notes and findings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sadcl.reports.ablation_text import DEMO_NOTE
from sadcl.reports.effect_text import (
    SPLITS,
    difference_text,
    p_comparison,
    p_text,
    seeds_text,
    verdict_text,
)
from sadcl.reports.label_gains import ArmGains, LabelGroup
from sadcl.reports.label_trends import Trend
from sadcl.reports.statistics import Verdict, least_pairs

MAX_NAMES = 6
"""The largest number of labels that a sentence names."""


def gains_table(gains: ArmGains) -> list[dict[str, str]]:
    """Format the labels, one row each, the most frequent first."""
    has_sizes = any(math.isfinite(gain.size) for gain in gains.labels)
    return [
        {
            "label": gain.label,
            "images": f"{gain.support:.0f}",
            **({"size": _percent(gain.size)} if has_sizes else {}),
            "baseline AP": f"{gain.baseline_AP:.2f}" if math.isfinite(gain.baseline_AP) else "",
            "difference (95 %, that label alone)": difference_text(gain.effect),
            "p (Benjamini-Hochberg)": p_text(gain.effect),
        }
        for gain in gains.labels
    ]


def thirds_table(gains: ArmGains) -> list[dict[str, str]]:
    """Format the groups of labels, one row each; none where there are too few labels."""
    return [
        {
            "labels": group.name,
            "count": str(len(group.labels)),
            "range": range_text(group),
            "difference in mean AP (95 %, Bonferroni)": difference_text(group.effect),
            "p (Holm)": p_text(group.effect),
        }
        for group in gains.groups
    ]


def range_text(group: LabelGroup) -> str:
    """Format the range of a group's frequencies or sizes."""
    if group.variable == "frequency":
        return f"{group.low:.0f} to {group.high:.0f} images"
    return f"{_percent(group.low)} to {_percent(group.high)} of the image"


def gains_notes(gains: ArmGains) -> Iterator[str]:
    """Explain the columns of the tables."""
    if gains.scale != "full":
        yield DEMO_NOTE
    seeds = seeds_text([len(gains.seeds)])
    yield (
        f"AP in percent on the {SPLITS[gains.split]}; differences from {gains.baseline} are in "
        f"percentage points over the {seeds} that both arms have. The 95 % interval (Student's t) "
        "of a label is for that label alone, so that with many labels some leave 0 out by chance. "
        "Each label is tested by a two-sided paired t test, corrected by Benjamini and "
        f"Hochberg over {len(gains.labels)} labels: of the significant labels, at most one in "
        "twenty is expected to be a false positive. Each third of the labels is tested by its mean "
        "AP in each seed; its p is corrected by Holm and its interval by Bonferroni, and so are "
        "those of the slopes. The interval of a correlation r is for that correlation alone."
    )
    if any(group.variable == "size" for group in gains.groups):
        yield "Size is the share of an image that the label's boxes cover, mean over its images."


def gains_sentences(gains: ArmGains) -> Iterator[str]:
    """State the findings, each with the data set and the arms that it is about."""
    for finding in gains_findings(gains):
        yield f"On {gains.dataset}, {gains.arm} compared with {gains.baseline}: {finding}"


def gains_findings(gains: ArmGains) -> Iterator[str]:
    """State which labels, groups and trends differ significantly, without naming the arms."""
    if not gains.seeds:
        yield "no seed has an AP for both arms."
        return
    least = least_pairs(gains.labels[0].effect.until if gains.labels else None)
    if len(gains.seeds) < least:
        seeds = seeds_text([len(gains.seeds)])
        decide = "decides" if len(gains.seeds) == 1 else "decide"
        yield f"{seeds} {decide} nothing, at least {least} are needed to test a label."
        return
    yield from _label_findings(gains)
    for variable in dict.fromkeys(group.variable for group in gains.groups):
        texts = [_group_text(group) for group in gains.groups if group.variable == variable]
        yield f"mean AP of each third of the labels, by {variable}: {'; '.join(texts)}."
    for trend in gains.trends:
        if not math.isnan(trend.slope):
            yield _trend_finding(trend)


def _label_findings(gains: ArmGains) -> Iterator[str]:
    total = len(gains.labels)
    significant = {
        verdict: [gain.label for gain in gains.labels if gain.effect.verdict == verdict]
        for verdict in (Verdict.GAIN, Verdict.LOSS)
    }
    for verdict, labels in significant.items():
        if labels:
            yield (
                f"a significant {verdict} for {len(labels)} of {total} labels: "
                f"{_names_text(labels)}."
            )
    if not any(significant.values()):
        yield (
            f"no significant difference for any of {total} labels over "
            f"{seeds_text([len(gains.seeds)])}."
        )


def _group_text(group: LabelGroup) -> str:
    effect = group.effect
    verdict = verdict_text(effect)
    p = "" if math.isnan(effect.p_corrected) else f"corrected p {p_comparison(effect)}: "
    return f"{group.name} {effect.difference:+z.2f} ({p}{verdict})"


def _trend_finding(trend: Trend) -> str:
    doubling = {"frequency": "number of images", "size": "object size"}[trend.variable]
    interval = ""
    if not math.isnan(trend.half_width):
        low, high = trend.slope - trend.half_width, trend.slope + trend.half_width
        interval = f" ({low:+z.2f} to {high:+z.2f})"
    finding = f"{trend.slope:+z.2f} points{interval} for each doubling of the {doubling}: "
    finding += "a significant trend" if trend.is_significant else "no significant trend"
    if not math.isnan(trend.p):
        finding += f" (corrected p {'< 0.001' if trend.p < 0.001 else f'= {trend.p:.3f}'})"
    if not math.isnan(trend.r):
        finding += (
            f"; correlation over the labels r = {trend.r:+.2f} "
            f"({trend.r_low:+.2f} to {trend.r_high:+.2f})"
        )
    return finding + "."


def _names_text(labels: Sequence[str]) -> str:
    rest = f" and {len(labels) - MAX_NAMES} more" if len(labels) > MAX_NAMES else ""
    return ", ".join(labels[:MAX_NAMES]) + rest


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g} %"
