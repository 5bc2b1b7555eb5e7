"""Gains by label in words: the labels, their thirds, what is shown and what is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sadcl.reports.ablation_text import SPLITS, count_words, difference, equals
from sadcl.reports.label_gains import Gains, Group, Trend

OF = {"frequency": "images", "size": "of the image"}
_NAMED = 6
"""Labels that a sentence names."""


def gains_table(found: Gains) -> list[dict[str, str]]:
    """One line a label, the most frequent first."""
    sized = any(math.isfinite(gain.size) for gain in found.labels)
    return [
        {
            "label": gain.label,
            "images": f"{gain.support:.0f}",
            **({"size": _percent(gain.size)} if sized else {}),
            "baseline AP": f"{gain.baseline:.2f}" if math.isfinite(gain.baseline) else "",
            "difference": difference(gain.effect),
            "p (Benjamini-Hochberg)": equals(gain.effect).removeprefix("= "),
        }
        for gain in found.labels
    ]


def thirds_table(found: Gains) -> list[dict[str, str]]:
    """One line a third of the labels; none where there are no thirds."""
    return [
        {
            "labels": group.name,
            "count": str(len(group.labels)),
            "from": span(group),
            "difference in mean AP": difference(group.effect),
            "p (Holm)": equals(group.effect).removeprefix("= "),
        }
        for group in found.groups
    ]


def span(group: Group) -> str:
    """From its first to its last label."""
    if group.by == "frequency":
        return f"{group.low:.0f} to {group.high:.0f} images"
    return f"{_percent(group.low)} to {_percent(group.high)} of the image"


def gains_notes(found: Gains) -> Iterator[str]:
    """What the columns mean."""
    if found.scale != "full":
        yield "Demo scale: these figures prove the path, not the science."
    yield (
        f"AP in percent on the {SPLITS[found.split]}; the difference to {found.baseline} is in percentage points, with its "
        f"95 % interval (Student's t) over {count_words([len(found.seeds)])} that both have. p of a label is the paired t "
        f"test's, corrected by Benjamini and Hochberg for {len(found.labels)} labels: of what is shown a twentieth may be "
        "chance. Thirds of the labels are tested by the mean of their AP in each seed, corrected by Holm."
    )
    if any(group.by == "size" for group in found.groups):
        yield "Size is the share of an image that the label's boxes cover, mean over its images."


def gains_sentences(found: Gains) -> Iterator[str]:
    """What is shown, what is not."""
    start = f"On {found.dataset}, {found.arm} against {found.baseline}:"
    if len(found.seeds) < 2:
        yield f"{start} {'one seed, which shows nothing of any label' if found.seeds else 'no seed has an AP of both'}."
        return
    total = len(found.labels)
    shown = {
        verdict: [g.label for g in found.labels if g.effect.verdict == verdict]
        for verdict in ("gain", "loss")
    }
    for verdict, labels in shown.items():
        if labels:
            yield f"{start} a {verdict} is shown for {len(labels)} of {total} labels: {_name_labels(labels)}."
    if not any(shown.values()):
        yield f"{start} no gain and no loss is shown for any of {total} labels over {count_words([len(found.seeds)])}."
    for by in dict.fromkeys(group.by for group in found.groups):
        of = "; ".join(_third(group) for group in found.groups if group.by == by)
        yield f"{start} mean AP of a third of the labels, by {by}: {of}."
    for trend in found.trends:
        yield from _trend(start, trend, total)


def _third(group: Group) -> str:
    verdict = {"gain": "a gain", "loss": "a loss"}.get(group.effect.verdict, group.effect.verdict)
    return f"{group.name} {group.effect.difference:+z.2f} (p {equals(group.effect)} corrected: {verdict})"


def _trend(start: str, trend: Trend, labels: int) -> Iterator[str]:
    if math.isnan(trend.slope):
        return
    more = {"frequency": "twice as many images", "size": "twice the size"}[trend.by]
    band = (
        ""
        if math.isnan(trend.half)
        else f" ({trend.slope - trend.half:+z.2f} to {trend.slope + trend.half:+z.2f})"
    )
    yield (
        f"{start} {trend.slope:+z.2f} points{band} with {more}: {'shown' if trend.shown else 'not shown'}"
        + (
            f" (p {'< 0.001' if trend.p < 0.001 else f'= {trend.p:.3f}'})"
            if not math.isnan(trend.p)
            else ""
        )
        + (
            f"; over the labels r = {trend.r:+.2f} ({trend.low:+.2f} to {trend.high:+.2f})"
            if not math.isnan(trend.r)
            else ""
        )
        + "."
    )


def _name_labels(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g} %"
