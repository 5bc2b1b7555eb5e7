"""Two studies in one page."""

from __future__ import annotations

import re

import pytest
from scipy import stats

from sadcl.errors import UserError
from sadcl.reports.page import html
from sadcl.reports.page.lead import lead_picture
from sadcl.reports.page.side_by_side import side_by_side
from sadcl.reports.page.study import study_data
from tests.reports.ablations import ablation

BASE = [50.0, 51.0, 52.5]


@pytest.fixture
def root(tmp_path):
    """Two ablations on one data set: an arm gains from the first to the second, one does not."""
    ablation(
        tmp_path,
        {"stage2": BASE, "a": [50.2, 50.9, 52.6]},
        study="one",
        seeds=[0, 1, 2],
        arms={"a": {"x": 1}},
    )
    second = {"stage2": [50.1, 50.8, 52.6], "a": [55.3, 55.9, 57.6], "new": BASE}
    ablation(tmp_path, second, study="two", seeds=[0, 1, 2, 3], arms={"a": {"x": 2}, "new": {}})
    return tmp_path


def compare(root, *names):
    studies = tuple(study_data(str(root), name) for name in names)
    return side_by_side(studies, tuple(study.comparison() for study in studies))


def test_the_arms_of_both_are_compared_seed_by_seed(root):
    both = compare(root, "one", "two")
    assert both.caption.endswith("mAP on the test images")
    assert [
        (line["arm"], line["one ± 95 %"][:5], line["two ± 95 %"][:5]) for line in both.results
    ] == [
        ("stage2", "51.17", "51.17"),
        ("a", "51.23", "56.27"),
    ]
    p = 2 * stats.ttest_rel([55.3, 55.9, 57.6], [50.2, 50.9, 52.6]).pvalue
    assert both.results[1]["p (Holm)"] == ("<0.001" if p < 0.001 else f"{p:.3f}")
    assert both.results[1]["difference (95 %, Bonferroni)"].startswith("+5.03 (+4.")
    assert both.sentences[0].startswith(
        "two compared with one, seed by seed: a significant gain for a (+5.03 points, +4."
    )
    assert both.sentences[0].endswith("; no significant difference for 1 comparison.")
    assert both.sentences[1].startswith("On coco14, stage2 in two compared with one over 3 pairs")
    assert both.sentences[1].endswith("no significant difference.")
    assert both.sentences[2].endswith("a significant gain.")
    assert both.differences == [
        {"what": "seeds", "one": "0, 1, 2", "two": "0, 1, 2, 3"},
        {"what": "arm a", "one": "x = 1", "two": "x = 2"},
        {"what": "arm new", "one": "none", "two": "the base unchanged"},
    ]


def test_what_cannot_be_compared_says_why(root):
    ablation(root, {"stage2": BASE, "a": BASE}, study="voc", dataset="voc2007")
    both = compare(root, "one", "voc")
    assert not both.results
    assert both.sentences == (
        "one and voc have no data set in common, so their figures are not compared.",
    )
    ablation(root, {"stage2": BASE[:2]}, study="short")
    assert compare(root, "one", "short").sentences[0].startswith("Whether short is better than one")
    ablation(root, {"x": BASE}, study="other")
    assert "have no arm in common" in compare(root, "one", "other").sentences[0]
    ablation(root, {"stage2": BASE}, study="demo", scale="demo")
    assert "made with different scales" in compare(root, "one", "demo").sentences[0]


def ticks(svg):
    """Return the numbers at the axes of a forest plot."""
    return re.findall(r">([−\d.]+)<", svg)


def test_both_pictures_have_one_scale(root):
    far = {"stage2": BASE, "a": [70.0, 71.1, 72.4], "b": BASE}
    ablation(root, far, study="far")
    pair = [
        (study, study.comparison()) for study in (study_data(str(root), n) for n in ("two", "far"))
    ]
    alone, beside = (lead_picture(*pair[0], others).svg for others in ((), [pair[1]]))
    assert ticks(alone) != ticks(beside)
    assert ticks(beside) == ticks(lead_picture(*pair[1], [pair[0]]).svg)


def test_a_page_has_both_with_ids_of_their_own(root):
    page = html.study_page(str(root), "one", "two")
    for name in ("one", "two"):
        assert f'<h2 class="side-name">{name}</h2>' in page
    assert 'id="study0-pair-' in page
    assert 'id="study1-forest-' in page
    assert page.count("<h1>Why?</h1>") == 1
    with pytest.raises(UserError, match="of two different ones, but got one, one"):
        html.study_page(str(root), "one", "one")


def test_what_is_to_be_known_of_both_studies_is_said_once(tmp_path):
    few = {"images": {"coco14": {"train": 90, "val": 10, "test": 60}}}
    for study, about in (("one", {}), ("two", few)):
        ablation(tmp_path, {"a": BASE, "b": BASE}, study=study, scale="demo", **about)
    page = html.study_page(str(tmp_path), "one", "two")
    banners = re.findall(r'<p class="banner" role="note">(.*?)</p>', page)
    assert [text[:36] for text in banners] == [
        "Demo scale: these figures only show ",
        "WARNING: coco14 has only 10 held-out",
    ]
    assert page.index(banners[0]) < page.index('class="side-name">one') < page.index(banners[1])
