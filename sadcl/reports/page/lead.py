"""The one picture at the top of a page, which shows the answer."""

from __future__ import annotations

import math
from typing import NamedTuple

from sadcl.reports.ablation import AblationReport
from sadcl.reports.effect_text import SPLITS
from sadcl.reports.page.curves import best_run_curve
from sadcl.reports.page.effect_charts import effects_chart, pair_chart
from sadcl.reports.page.search_section import history
from sadcl.reports.page.study import StudyData, complete_runs
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


def lead_picture(study: StudyData, report: AblationReport | None) -> Lead:
    """Draw the picture that shows the answer of a study.

    This is the forest plot of several comparisons, both arms of a single one, the trials of a
    search that is not confirmed, and the curve of the best of other runs.
    """
    effects = [effect for effect in report.effects if effect.pairs] if report else []
    if report is not None and len(effects) == 1 and len(report.datasets) == 1:
        return _pair(study, report, effects[0])
    if report is not None and effects:
        return Lead("forest", effects_chart(report), _forest_caption(report), _is_wide(report))
    if study.kind == "search" and (svg := history(study, HISTORY_SIZE)):
        return Lead("history", svg, HISTORY_CAPTION)
    if study.kind != "search" and (curve := best_run_curve(study)):
        return Lead("curve", curve.charts[0], curve.caption)
    return Lead()


HISTORY_CAPTION = (
    "Held-out mAP of each trial by its start; of a trial that was stopped early, the last that it "
    "reached. The scale is that of the trials."
)


def _is_wide(report: AblationReport) -> bool:
    return len(report.datasets) > 1


def _forest_caption(report: AblationReport) -> str:
    compared_with = "the arm that each is compared with (see the table)"
    if not report.references:
        compared_with = report.compared_with
    return (
        f"{report.quantity} on the {SPLITS[report.split]}: difference of each arm from "
        f"{compared_with}."
    )


def _pair(study: StudyData, report: AblationReport, effect: Effect) -> Lead:
    """Draw both arms of the only comparison."""
    figures = {
        arm: {
            row["seed"]: row[report.metric]
            for row in complete_runs(study.arms(effect.dataset)[arm])
            if is_finite(row[report.metric])
        }
        for arm in (effect.reference, effect.arm)
    }
    svg = pair_chart(report, effect, figures[effect.reference], figures[effect.arm])
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
