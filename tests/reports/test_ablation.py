"""An ablation as the tables have it."""

from __future__ import annotations

import pytest

from sadcl import storage
from sadcl.errors import UserError
from sadcl.reports import ablation_documents, forest_plot
from sadcl.reports.ablation import Software, ablation_report, software_of
from sadcl.reports.ablation_text import ablation_notes, ablation_sentences, ablation_table
from tests.reports.ablations import ablation, add


def test_another_baseline_and_another_metric(root):
    report = ablation_report(root, "ab", baseline="both", metric="val_mAP")
    by_arm = {effect.arm: effect for effect in report.on("coco14")}
    assert by_arm["stage2"].difference == pytest.approx(-1.0)
    assert by_arm["both"].verdict == "baseline"
    text = " ".join([*ablation_notes(report), *ablation_sentences(report)])
    assert "held-out training images, which also chose each run's epoch" in text
    assert "published" not in text + str(ablation_table(report, "coco14"))  # of the test images


def test_a_study_that_has_not_begun(tmp_path):
    root = ablation(tmp_path, {"stage2": [], "a": []})
    add(root, "other", 0, 1.0, study="another")
    report = ablation_report(root, "ab")
    assert "No arm of the study has a run yet." in " ".join(ablation_sentences(report))
    assert ablation_documents.markdown(report).startswith("### ab: Why?\n")
    assert "| arm |" in ablation_documents.markdown(report)
    assert r"\bottomrule" in ablation_documents.latex(report)
    with pytest.raises(UserError, match="nothing to draw"):
        forest_plot.draw_forest(report, f"{root}/x.png")


def test_data_sets_and_seeds_that_the_study_lists_count_before_they_have_a_run(tmp_path):
    figures = {"stage2": [50.0, 51.0], "a": [50.5, 51.7]}
    root = ablation(
        tmp_path, figures, datasets={"voc2007": {}, "coco14": {}}, seeds=[0, 1, 2], question=""
    )
    report = ablation_report(root, "ab")
    assert report.datasets == ("voc2007", "coco14")
    assert "On coco14, 2 of 6 runs have no figure and were left out: 2 missing." in " ".join(
        ablation_sentences(report)
    )
    assert "On voc2007, 6 of 6 runs have no figure and were left out: 6 missing." in " ".join(
        ablation_sentences(report)
    )
    assert ablation_documents.markdown(report).startswith("### ab\n")
    assert len(forest_plot.forest_figure(report).axes) == 2
    report = ablation_report(ablation(tmp_path / "b", figures, datasets={"voc2007": {}}), "ab")
    assert (
        "On voc2007, no arm has a run yet. On coco14, this study cannot answer anything yet"
        in " ".join(ablation_sentences(report))
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("an",), "no study 'an' here; did you mean 'ab'"),
        (("../studies/ab",), "There is no study"),
        (("search",), "is a search, not an ablation: use `sadcl results top search`"),
        (("ab", "stage"), "has no arm 'stage'; did you mean 'stage2'"),
        (("ab", None, "test_map"), "no metric 'test_map' in percent; did you mean 'test_mAP'"),
        (("ab", None, "seconds"), "no metric 'seconds' in percent"),
        (("ab", None, "test_undefined"), "no metric 'test_undefined' in percent"),
    ],
)
def test_mistakes_name_the_nearest(root, arguments, message):
    storage.write(f"{root}/studies/search.json", b'{"name": "search", "space": {}}')
    with pytest.raises(UserError, match=message):
        ablation_report(root, *arguments)


def test_the_versions_that_made_the_runs_are_listed_once():
    one = {"sadcl": "0.1.0", "code": "abc", "revision": "f00+"}
    rows = [one, one, {"sadcl": "0.2.0", "code": None, "revision": None}, {"arm": "of before"}]
    assert software_of(rows) == (Software("0.1.0", "abc", "f00+"), Software("0.2.0", "", ""))
