"""The one picture at the top of a page, which shows the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sadcl.reports.ablation import AblationReport
from sadcl.reports.effect_text import SPLITS
from sadcl.reports.page.curves import best_run_curve
from sadcl.reports.page.effect_charts import effects_chart, pair_chart
from sadcl.reports.page.search_section import history, trial_points
from sadcl.reports.page.study import StudyData, complete_runs
from sadcl.reports.page.svg import with_margin
from sadcl.reports.statistics import Effect
from sadcl.search.ranking import is_finite

HISTORY_SIZE = (5.0, 3.0)


class Lead(NamedTuple):
    """The picture and its caption.

    Attributes:
        kind: ``forest``, ``pair``, ``history``, ``curve``, or empty where there is no picture.
        is_wide: whether it takes the whole width of the page.
    """

    kind: str = ""
    svg: str = ""
    caption: str = ""
    is_wide: bool = False


Studies = Sequence[tuple[StudyData, AblationReport | None]]
"""Studies, and the comparison of each within itself."""


def lead_picture(study: StudyData, report: AblationReport | None, beside: Studies = ()) -> Lead:
    """Draw the picture that shows the answer of a study.

    This is the forest plot of several comparisons, both arms of a single one, the trials of a
    search that is not confirmed, and the curve of the best of other runs.

    Args:
        study: the study.
        report: its comparison.
        beside: studies whose pictures have the same scale, where they are of the same kind.
    """
    kind = _kind(study, report)
    same = [(one, its) for one, its in beside if _kind(one, its) == kind]
    if report is not None and kind in ("pair", "forest"):
        reports = [report, *(its for _, its in same if its is not None)]
        limits = _difference_limits(reports) if same else None
        if kind == "forest":
            svg = effects_chart(report, limits)
            return Lead(kind, svg, _forest_caption(report), len(report.datasets) > 1)
        return _pair(study, report, [(one, its) for one, its in same if its is not None], limits)
    if kind == "history":
        values = [trial.held_out_mAP for one, _ in same for trial in trial_points(one)]
        return Lead(kind, history(study, HISTORY_SIZE, values), HISTORY_CAPTION)
    curve = best_run_curve(study) if kind == "curve" else None
    return Lead(kind, curve.charts[0], curve.caption) if curve else Lead()


def _kind(study: StudyData, report: AblationReport | None) -> str:
    effects = _compared(report) if report else []
    if report is not None and effects:
        return "pair" if len(effects) == 1 and len(report.datasets) == 1 else "forest"
    if study.kind != "search":
        return "curve"
    return "history" if any(math.isfinite(t.held_out_mAP) for t in trial_points(study)) else ""


def _compared(report: AblationReport) -> list[Effect]:
    return [effect for effect in report.effects if effect.pairs]


def _difference_limits(reports: Sequence[AblationReport]) -> tuple[float, float]:
    """Return the scale of the differences of several studies, which has 0."""
    effects = [effect for report in reports for effect in _compared(report)]
    bounds = [bound for effect in effects for bound in effect.difference_interval]
    values = [value for effect in effects for value in effect.differences]
    return with_margin([0.0, *values, *filter(math.isfinite, bounds)])


HISTORY_CAPTION = (
    "Held-out mAP of each trial by its start; of a trial that was stopped early, the last that it "
    "reached. The scale is that of the trials."
)


def _forest_caption(report: AblationReport) -> str:
    compared_with = "the arm that each is compared with (see the table)"
    if not report.references:
        compared_with = report.compared_with
    return (
        f"{report.quantity} on the {SPLITS[report.split]}: difference of each arm from "
        f"{compared_with}."
    )


def _pair(
    study: StudyData,
    report: AblationReport,
    same: Sequence[tuple[StudyData, AblationReport]],
    limits: tuple[float, float] | None,
) -> Lead:
    """Draw both arms of the only comparison."""
    (effect,) = _compared(report)
    both = _figures(study, report)
    scales = None
    if limits is not None:
        all_figures = [both, *(_figures(*one) for one in same)]
        mAP = [value for pair in all_figures for arm in pair for value in arm.values()]
        scales = (with_margin(mAP), limits)
    svg = pair_chart(report, effect, *both, scales=scales)
    interval = "" if math.isnan(effect.p) else ", with its 95 % interval"
    mark = "filled diamond: significant"
    if not effect.is_significant:
        mark = f"open diamond: {'not tested' if math.isnan(effect.p) else 'not significant'}"
    caption = (
        f"{effect.dataset}. Left: {report.quantity} on the {SPLITS[report.split]}; grey: single "
        f"seeds, a line joins the same seed; diamonds: means. Right: the difference of "
        f"{effect.arm} from {effect.reference}{interval}; {mark}."
    )
    return Lead("pair", svg, caption)


def _figures(study: StudyData, report: AblationReport) -> tuple[dict[int, float], ...]:
    """Return the figures by seed of both arms of the only comparison, the reference first."""
    (effect,) = _compared(report)
    return tuple(
        {
            row["seed"]: row[report.metric]
            for row in complete_runs(study.arms(effect.dataset)[arm])
            if is_finite(row[report.metric])
        }
        for arm in (effect.reference, effect.arm)
    )
