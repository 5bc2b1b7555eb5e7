"""The picture at the top of a page."""

from __future__ import annotations

from sadcl.reports.page.lead import lead_picture
from sadcl.reports.page.study import study_data
from tests.reports.ablations import ablation, add
from tests.reports.pages import search

BASE = [50.0, 51.0, 52.5]
GAIN = [53.0, 54.1, 55.4]


def lead(root, name="ab"):
    study = study_data(str(root), name)
    return lead_picture(study, study.comparison())


def test_several_comparisons_are_a_forest_plot(tmp_path):
    ablation(tmp_path, {"stage2": BASE, "a": GAIN, "baseline": [40.0, 41.1, 42.4]})
    picture = lead(tmp_path)
    assert (picture.kind, picture.is_wide) == ("forest", False)
    assert picture.caption == "mAP on the test images: difference of each arm from stage2."
    assert "the arm “baseline”" in picture.svg


def test_a_single_comparison_shows_both_arms_by_seed(tmp_path):
    ablation(tmp_path, {"stage2": BASE, "a": GAIN})
    picture = lead(tmp_path)
    assert picture.kind == "pair"
    assert "<title>seed 0: 50.00, 53.00</title>" in picture.svg
    assert ">+3.00 points<" in picture.svg
    assert "filled diamond: significant" in picture.caption
    search(tmp_path / "search")
    picture = lead(tmp_path / "search", "s")
    assert picture.kind == "pair"
    assert picture.caption.endswith("from stage 2 without contrasts; open diamond: not tested.")


def test_a_search_that_is_not_confirmed_shows_its_trials(tmp_path):
    search(tmp_path, 4, pruned=1, failed=0, confirmed=False)
    picture = lead(tmp_path, "s")
    assert picture.kind == "history"
    assert "pooled baseline" in picture.svg


def test_where_nothing_is_complete_there_is_no_picture(tmp_path):
    ablation(tmp_path, {"stage2": [], "a": []})
    add(tmp_path, "a", 0, status="failed", cause="Why")
    assert lead(tmp_path) == ("", "", "", False)
