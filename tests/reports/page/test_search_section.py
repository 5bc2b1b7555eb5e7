"""The section of a search: how many rows a chart has, and its scale."""

from __future__ import annotations

import json
import re

import pytest

from sadcl.reports import importance
from sadcl.reports.page import html
from sadcl.reports.page.search_charts import TrialPoint, history_chart
from sadcl.reports.page.search_section import search_section
from sadcl.reports.page.study import study_data
from tests.reports.pages import search


def test_many_trials_are_thinned_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(importance, "RESAMPLES", 10)
    monkeypatch.setattr(importance, "PERMUTATIONS", 10)
    search(tmp_path, 240, pruned=90, failed=5, labels=tuple(f"label {i}" for i in range(200)))
    text = html.study_page(str(tmp_path), "s")
    assert len(text.encode()) < 1_500_000
    assert "of 235 trials (the best, and others at even distances)" in text
    assert "The best 100 of 240 trials" in text
    assert re.search(r"stage 2: 120 of \d+ runs are drawn", text)
    assert "the 120 of 200 labels that differ the most" in text
    compared = {f"confirm {arm}, seed {seed}" for arm in ("stage2", "tuned") for seed in (7, 8)}
    assert compared < set(re.findall(r"<title>(.*?):", text))  # none of them is thinned out


def test_a_trial_without_a_field_has_a_line_across_all_axes(tmp_path, monkeypatch):
    """Of a conditional field: it was cut there, so that nothing showed the field before it."""
    monkeypatch.setattr(importance, "RESAMPLES", 10)
    monkeypatch.setattr(importance, "PERMUTATIONS", 10)
    search(tmp_path, 12)
    study = study_data(str(tmp_path), "s")
    trials = study.phase("search")
    drawn = sum(row["status"] != "failed" for row in trials)
    for number, row in enumerate(trials):
        params = json.loads(row["params"])
        if number % 2:
            del params["bank.epsilon"]
        row["params"] = json.dumps(params)
    svg = search_section(study, None).parallel
    assert sum("not set" in text for text in texts(svg)) == 1
    lines = re.findall(r'id="parallel-trial\d+".*?<path d="([^"]*)"', svg, re.DOTALL)
    assert len(lines) == drawn
    assert {(line.count("M"), line.count("L")) for line in lines} == {(1, 3)}


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>|<tspan[^>]*>([^<]*)</tspan>", svg)


def scale(svg):
    """Return the numbers of both axes' ticks."""
    return [float(text) for text, _ in texts(svg) if re.fullmatch(r"[\d.]+", text)]


def points(*values, status="complete"):
    return [TrialPoint(i, f"trial {i}", status, value) for i, value in enumerate(values, 100)]


@pytest.mark.parametrize(("baseline", "arrow"), [(62.0, "↓ "), (95.0, "↑ "), (72.4, "")])
def test_the_scale_is_that_of_the_trials_and_a_baseline_is_a_line_with_its_name(baseline, arrow):
    svg = history_chart(points(71.0, 72.0, 73.0), {"pooled baseline": baseline})
    mAP = [tick for tick in scale(svg) if tick < 100 and tick != baseline]
    assert min(mAP) >= 70.5
    assert max(mAP) <= 73.5
    assert f"{arrow}pooled baseline" in svg
    assert f">{baseline:.2f}<" in svg
    assert svg.count("pooled baseline") == 2  # once in the words for those who cannot see it


def test_a_trial_far_below_the_others_is_marked_at_the_edge():
    svg = history_chart(points(1.0, *[70 + i / 10 for i in range(20)]), {})
    assert min(tick for tick in scale(svg) if tick < 100) > 60
    assert "below this scale" in svg
    assert "<title>trial 100: 1.00</title>" in svg
    assert "below this scale" not in history_chart(points(70.0, 71.0), {})
