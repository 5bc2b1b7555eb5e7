"""Two studies of one question: what differs between them, and how their figures compare."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sadcl.console import count_text, setting_text
from sadcl.reports.ablation import AblationReport
from sadcl.reports.effect_text import (
    SPLITS,
    arm_text,
    difference_text,
    interval_text,
    p_comparison,
    p_text,
    pairs_text,
    plus_minus,
    verdict_text,
)
from sadcl.reports.page import tables
from sadcl.reports.page.study import Row, StudyData, complete_runs
from sadcl.reports.statistics import Effect, Verdict, interval, paired_effect, with_holm
from sadcl.search.ranking import is_finite

Pair = tuple[StudyData, StudyData]
OWN_FACTS = ("first and last run", "base configuration")
"""Facts that differ between any two studies and tell nothing about the question."""
DATA_COLUMNS = ("data_digest", "scale")


@dataclass(frozen=True)
class SideBySide:
    """What the page of two studies has besides what it has of each.

    Attributes:
        differences: what was set differently, a row each; empty where nothing was.
        results: the arms that both have, a row each; ``caption`` says on which images.
        sentences: the findings; the first is the answer.
        note: how the figures were compared; empty where they were not.
    """

    differences: tables.Cells
    results: tables.Cells
    caption: str
    sentences: tuple[str, ...]
    note: str


class Compared(NamedTuple):
    """An arm of both studies.

    Attributes:
        effect: of the second study's figures, compared with the first's.
        first: the mean of the first, and half of its 95 % interval.
    """

    effect: Effect
    first: tuple[float, float]


def side_by_side(pair: Pair, reports: tuple[AblationReport | None, ...]) -> SideBySide:
    """Compare two studies.

    Args:
        pair: the studies; the second is compared with the first.
        reports: the comparison of each within itself.
    """
    metric = _shared_metric(pair, reports)
    compared = _compared(pair, metric)
    reason = _why_not(pair, compared)
    return SideBySide(
        differences=_differences(pair),
        results=[] if reason else [_result_line(pair, one) for one in compared],
        caption=f"What both studies have: mAP on the {_images(metric)}",
        sentences=(reason,) if reason else tuple(_sentences(pair, compared)),
        note="" if reason else _note(pair, metric),
    )


def _shared_metric(pair: Pair, reports: tuple[AblationReport | None, ...]) -> str:
    """Choose the images that both studies have figures of: the test images where possible."""
    metrics = {report.metric for report in reports if report is not None}
    return "test_mAP" if metrics == {"test_mAP"} and None not in reports else "val_mAP"


def _compared(pair: Pair, metric: str) -> list[Compared]:
    """Compare each arm of the second study with the same arm of the first, on each data set."""
    first, second = pair
    compared: list[Compared] = []
    for dataset in (name for name in first.datasets if name in second.datasets):
        arms = [study.arms(dataset) for study in pair]
        figures = {
            arm: [_by_seed(by_arm[arm], metric) for by_arm in arms]
            for arm in arms[0]
            if arm in arms[1]
        }
        figures = {arm: values for arm, values in figures.items() if all(values)}
        effects = with_holm(
            [
                paired_effect(dataset, arm, second_by_seed, first_by_seed)
                for arm, (first_by_seed, second_by_seed) in figures.items()
            ]
        )
        compared += [
            Compared(effect, interval(list(values[0].values())))
            for effect, values in zip(effects, figures.values(), strict=True)
        ]
    return compared


def _by_seed(rows: list[Row], metric: str) -> dict[int, float]:
    return {
        row["seed"]: float(row[metric]) for row in complete_runs(rows) if is_finite(row[metric])
    }


def _why_not(pair: Pair, compared: list[Compared]) -> str:
    """State why the figures of the studies cannot be compared; empty where they can."""
    first, second = pair
    names = f"{first.name} and {second.name}"
    if not set(first.datasets) & set(second.datasets):
        return f"{names} have no data set in common, so their figures are not compared."
    for column in DATA_COLUMNS:
        values = [{row[column] for row in study.main_runs} for study in pair]
        if all(values) and not values[0] & values[1]:
            what = "images" if column == "data_digest" else "scales"
            return f"{names} were made with different {what}, so their figures are not compared."
    if not compared:
        return f"{names} have no arm in common that is complete in both, so nothing is compared."
    return ""


def _differences(pair: Pair) -> tables.Cells:
    """List the facts and the configuration that were set differently."""
    facts = [tables.study_facts(study) for study in pair]
    configs = [tables.shared_config(study) for study in pair]
    own = ("data", *OWN_FACTS)
    rows = [
        (name, *(fact.get(name, "") for fact in facts))
        for name in dict.fromkeys([*facts[0], *facts[1]])
        if name not in own
    ]
    rows += _spaces_or_arms(pair)
    rows += [(field, *texts) for field, texts in _changed_fields(configs)]
    first, second = (study.name for study in pair)
    return [{"what": name, first: one, second: other} for name, one, other in rows if one != other]


def _spaces_or_arms(pair: Pair) -> Iterator[tuple[str, ...]]:
    """Yield the range of each searched field, or what each arm changes, in both studies."""
    both: list[dict[str, str]] = []
    for study in pair:
        lines = [list(line.values()) for line in tables.space_or_arms(study)]
        both.append({line[0]: line[1] for line in lines})
    what = {"search": "range of", "ablation": "arm"}
    for name in dict.fromkeys([*both[0], *both[1]]):
        start = what.get(pair[0].kind, "") if pair[0].kind == pair[1].kind else ""
        yield f"{start} {name}".strip(), *(texts.get(name, "none") for texts in both)


def _changed_fields(configs: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the fields that all runs of each study share, where their values differ."""
    for field in sorted(configs[0].keys() & configs[1].keys()):
        values = [config[field] for config in configs]
        if values[0] != values[1]:
            yield field, [setting_text(value) for value in values]


def _result_line(pair: Pair, compared: Compared) -> dict[str, str]:
    effect = compared.effect
    first, second = (f"{study.name} ± 95 %" for study in pair)
    return {
        "arm": arm_text(effect.arm),
        "data": effect.dataset,
        first: plus_minus(*compared.first),
        second: plus_minus(effect.mean, effect.half_width),
        "difference (95 %, Bonferroni)": difference_text(effect),
        "p (Holm)": p_text(effect),
    }


def _sentences(pair: Pair, compared: list[Compared]) -> Iterator[str]:
    """Yield the answer, and then what each arm gains from the first study to the second."""
    first, second = pair
    effects = [one.effect for one in compared]
    yield _answer(first.name, second.name, effects)
    for effect in effects:
        size = f"{effect.difference:+z.2f} points" if effect.pairs else ""
        if not math.isnan(effect.p):
            size += f" ({interval_text(effect)}), corrected p {p_comparison(effect)}"
        text = ": ".join(filter(None, (size, verdict_text(effect))))
        yield (
            f"On {effect.dataset}, {arm_text(effect.arm)} in {second.name} compared with "
            f"{first.name} over {pairs_text(effect)} of seeds: {text}."
        )


def _answer(first: str, second: str, effects: list[Effect]) -> str:
    """State in one sentence what is significant, and of how many arms nothing is."""
    if all(math.isnan(effect.p) for effect in effects):
        return f"Whether {second} is better than {first} cannot be told yet."
    several = len({effect.dataset for effect in effects}) > 1
    findings = []
    for verdict in (Verdict.GAIN, Verdict.LOSS):
        texts = [
            f"{arm_text(effect.arm)}{f' on {effect.dataset}' if several else ''} "
            f"({effect.difference:+z.2f} points, {interval_text(effect)})"
            for effect in effects
            if effect.verdict == verdict
        ]
        if texts:
            findings.append(f"a significant {verdict} for {', '.join(texts)}")
    others = sum(effect.verdict == Verdict.NOT_SIGNIFICANT for effect in effects)
    if others:
        findings.append(f"no significant difference for {count_text(others, 'comparison')}")
    return f"{second} compared with {first}, seed by seed: {'; '.join(findings)}."


def _note(pair: Pair, metric: str) -> str:
    first, second = pair
    return (
        f"Differences are {second.name} minus {first.name} on the "
        f"{_images(metric)}, paired by seed: two-sided paired t test, p corrected "
        "by Holm and intervals by Bonferroni for the arms of a data set. What else differs between "
        "the studies is listed above; a difference in the figures may come from any of it."
    )


def _images(metric: str) -> str:
    return SPLITS[metric.partition("_")[0]]
