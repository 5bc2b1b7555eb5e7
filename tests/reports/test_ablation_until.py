"""An ablation whose seeds were added until it was settled: table, notes, sentences and page."""

from __future__ import annotations

import dataclasses

import pytest

from sadcl.reports.ablation import ablation_report
from sadcl.reports.ablation_documents import latex, markdown
from sadcl.reports.ablation_text import ablation_notes, ablation_sentences, ablation_table
from sadcl.reports.page.study import study_data
from sadcl.reports.statistics import compare_arms
from sadcl.search import Until
from tests.reports.ablations import ablation

UNTIL = Until(0.5, at_least=3, at_most=6)
FIGURES = {
    "stage2": [80.0, 81.0, 79.5, 80.2, 80.9, 79.1],
    "far": [60.0, 61.1, 59.4, 60.2],
    "same": [80.01, 81.02, 79.49, 80.21],
    "wild": [83.0, 78.0, 82.0, 78.0, 84.0, 76.0],
    "new": [80.0, 81.1],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    # The first seed is 0, so that rows of a seed that is none of Until's are there too.
    figures = {arm: [99.0, *values] for arm, values in FIGURES.items()}
    about = {"until": UNTIL.to_json(), "seeds": [], "datasets": {"coco14": {}}}
    return ablation(tmp_path_factory.mktemp("until"), figures, **about)


def test_the_table_says_how_many_seeds_and_why_it_stopped(root):
    report = ablation_report(root, "ab")
    lines = {line["arm"]: line for line in ablation_table(report, "coco14")}
    assert {arm: (line["seeds"], line["stopped"]) for arm, line in lines.items()} == {
        "stage2": ("6", ""),
        "far": ("4", "sign settled"),
        "same": ("4", "narrow enough"),
        "wild": ("6", "limit reached"),
        "new": ("2", "not yet"),
    }
    assert "2 pairs: too few" in lines["new"]["difference (95 %, Bonferroni)"]
    text = " ".join([*ablation_notes(report), *ablation_sentences(report)])
    for part in (
        "Seeds were added as needed: 3 to 6 seeds, until the 95 % interval of a difference is ",
        "corrected for looking after every seed",
        "a significant loss. Stopped after 4 seeds: the sign is settled.",
        "no significant difference. Stopped after 4 seeds: the interval is narrow enough.",
        "Stopped after 6 seeds: the limit is reached, and the difference is not settled.",
        "2 pairs decide nothing, at least 3 are needed. It has 2 seeds and needs more.",
    ):
        assert part in text
    assert "missing" not in text  # an arm that needs no further seed misses none
    for document in (markdown(report), latex(report)):
        assert "sign settled" in document
        assert "a significant loss" in document


def test_intervals_are_those_by_which_the_arms_stopped(root):
    """Wider than those of a fixed number of seeds, by the looks and by the four arms."""
    for effect in ablation_report(root, "ab").effects:
        if effect.p == effect.p:
            level = UNTIL.level(len(effect.pairs), family=4)
            assert level < 0.05 / 4
            assert (abs(effect.difference) > effect.difference_half_width) == effect.is_significant
            assert effect.family == 4
    rows = [
        {"key": f"{arm}{s}", "arm": arm, "seed": s, "dataset": "d", "status": "complete", "mAP": x}
        for arm, values in FIGURES.items()
        for s, x in enumerate(values, 1)
    ]
    fixed, added = (
        {e.arm: e for e in compare_arms(rows, "stage2", "mAP", until=until)}
        for until in (None, UNTIL)
    )
    for arm in ("far", "same", "wild"):
        assert added[arm].difference == fixed[arm].difference
        assert added[arm].difference_half_width > fixed[arm].difference_half_width
        assert added[arm].p > fixed[arm].p


def test_with_another_baseline_nothing_is_said_of_why_it_stopped(root):
    report = ablation_report(root, "ab", baseline="far")
    assert "stopped" not in ablation_table(report, "coco14")[0]


def test_bounds_that_were_changed_after_a_look_are_told(tmp_path):
    former = Until(0.5, 3, 4).to_json()
    about = {"until": UNTIL.to_json(), "former_until": [former]}
    report = ablation_report(ablation(tmp_path, {"a": [1.0, 2.0], "b": [1.0, 2.5]}, **about), "ab")
    text = " ".join(ablation_notes(report))
    assert "the bounds were changed after looking (3 to 4, then 3 to 6 seeds)" in text
    assert "up to 10 % of such studies" in text
    fixed = dataclasses.replace(report, until=None)
    assert "this study looked after every seed before" in " ".join(ablation_notes(fixed))


def test_the_page_plans_no_fixed_number_of_runs(root):
    assert study_data(root, "ab").planned is None
