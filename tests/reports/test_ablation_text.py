"""The words of an ablation: table, notes, findings, and the runs that have no figure."""

from __future__ import annotations

import re

from sadcl.reports.ablation import ablation_report
from sadcl.reports.ablation_text import (
    ablation_notes,
    ablation_sentences,
    ablation_table,
    runs_without_figure,
)
from tests.reports.ablations import FIGURES, PAPER, ablation, add

DIFFERENCE = "difference (95 %, Bonferroni)"


def words(report):
    return " ".join([*ablation_notes(report), *ablation_sentences(report)])


def test_the_table_has_an_arm_a_line_in_the_order_of_the_study(root):
    lines = ablation_table(ablation_report(root, "ab"), "coco14")
    assert [line["arm"] for line in lines] == list(FIGURES)
    assert list(lines[0]) == [
        "arm",
        "SARL",
        "SSCL",
        "PSCL",
        "seeds",
        "mAP ± 95 %",
        DIFFERENCE,
        "p (Holm)",
        "published",
    ]
    ticks = [[line[name] for name in ("SARL", "SSCL", "PSCL")] for line in lines]
    assert ticks == [["✓", "", ""], ["✓", "✓", ""], ["✓", "✓", "✓"], ["", "", ""]]
    base, sscl, both, worse = (
        [line[name] for name in ("mAP ± 95 %", DIFFERENCE, "p (Holm)", "published")]
        for line in lines
    )
    assert base == ["80.17 ± 1.90", "baseline", "", "85.0"]
    assert sscl[:2] == ["80.23 ± 1.52", "+0.07 (-0.61 to +0.74)"]
    assert both == ["81.17 ± 1.91", "+1.00 (+0.96 to +1.04)", "<0.001", "85.6"]
    assert worse[1] == "-10.00 (-10.44 to -9.56)"


def test_the_sentences_state_what_is_significant_and_no_more(root):
    text = words(ablation_report(root, "ab"))
    for part in (
        "mAP in percent on the test images, on which each run was evaluated once",
        "mean over 0 to 3 seeds per arm, ± half of its 95 % interval",
        "corrected by Bonferroni for the number of arms",
        "On coco14, both compared with stage2: +1.00 mAP (+0.96 to +1.04), "
        "corrected p < 0.001: a significant gain.",
        "On coco14, worse compared with stage2: -10.00 mAP (-10.44 to -9.56), "
        "corrected p < 0.001: a significant loss.",
        "On nuswide, this study cannot answer anything yet",
        "On nuswide, both compared with stage2: +1.00 mAP, 1 pair decides nothing, at least 3 are "
        "needed.",
        "On nuswide, +SSCL compared with stage2: no seed has a figure for both arms, "
        "so they cannot be compared.",
        "On nuswide, 2 of 4 runs have no figure and were left out: 1 failed, 1 missing.",
        "Rows of arms that are no longer in the study were left out: former.",
        "corrected by Holm",
        "The published figures are single runs",
    ):
        assert part in text
    assert re.search(
        r"\+SSCL compared with stage2: \+0\.07 mAP \(-0\.61 to \+0\.74\), corrected p = 0\.5\d\d: "
        r"no significant difference\.",
        text,
    )
    assert "On coco14, 0 of" not in text


def test_the_runs_without_a_figure_are_listed_with_their_cause(root):
    failed, missing = runs_without_figure(ablation_report(root, "ab"))
    assert list(failed) == ["dataset", "arm", "seed", "reason", "key", "cause"]
    assert list(failed.values()) == [
        "nuswide",
        "+SSCL",
        0,
        "failed",
        "ab-+SSCL-nuswide-s0",
        "Diverged: step 3",
    ]
    assert (missing["arm"], missing["reason"]) == ("worse", "missing")


def test_a_demo_is_not_compared_with_the_paper(tmp_path):
    report = ablation_report(
        ablation(tmp_path, {"stage2": [60.0], "both": [61.0]}, scale="demo", published=PAPER), "ab"
    )
    assert "published" not in ablation_table(report, "coco14")[0]
    assert words(report).startswith("Demo scale: these figures only show that everything works.")
    assert "over 1 seed per arm" in words(report)
    assert "seeds" not in ablation_table(report, "coco14")[0]  # all have the same


def test_p_is_never_rounded_onto_the_bound_that_it_is_below(tmp_path):
    report = ablation_report(
        ablation(tmp_path, {"stage2": [50.0] * 3, "a": [50.3, 50.5, 50.702]}), "ab"
    )
    (_, effect) = report.effects
    assert 0.0495 < effect.p_corrected < 0.05
    assert ablation_table(report, "coco14")[1]["p (Holm)"] == "<0.05"
    assert "corrected p < 0.05: a significant gain" in words(report)


def test_beside_an_arm_that_is_called_baseline_the_word_is_reference(tmp_path):
    ablation(tmp_path, {"both": [50.0, 51.0, 53.0], "Baseline": [50.0, 51.0, 52.0]})
    table = ablation_table(ablation_report(str(tmp_path), "ab"), "coco14")
    assert [(line["arm"], line[DIFFERENCE][:9]) for line in table] == [
        ("both", "reference"),
        ("Baseline", "-0.33 (-1"),
    ]


def test_figures_that_are_equal_in_all_seeds_have_no_interval(tmp_path):
    ablation(tmp_path, {"both": [50.0, 51.0, 52.0], "same": [50.0, 51.0, 52.0]}, scale="demo")
    report = ablation_report(str(tmp_path), "ab")
    line = ablation_table(report, "coco14")[1]
    assert (line[DIFFERENCE], line["p (Holm)"]) == ("+0.00 (equal in all 3 seeds)", "1.000")
    assert next(ablation_sentences(report)) == (
        "On coco14, same compared with both: +0.00 mAP (equal in all 3 seeds), corrected p = "
        "1.000: no significant difference."
    )


def test_seeds_without_a_partner_are_in_the_mean_only(tmp_path):
    root = ablation(tmp_path, {"stage2": [50.0, 51.0, 52.0], "a": [50.5, 51.7, 52.8, 53.0]})
    report = ablation_report(root, "ab")
    assert ablation_table(report, "coco14")[1][DIFFERENCE].endswith(", 3 pairs)")
    assert "1 of its 4 seeds has no counterpart in stage2." in words(report)


def test_how_strongly_contrasts_pull_is_said_and_an_idle_one_is_warned_of(tmp_path):
    root = ablation(tmp_path, {"stage2": [80.0, 81.0], "both": [81.0, 82.0]})
    for seed, share in enumerate((0.2, 0.3)):
        figures = {"gradient_class": 2.0, "gradient_sample": 2 * share, "gradient_prototype": 0.02}
        add(root, "both", seed, 81.0 + seed, gradients=figures)
    report = ablation_report(root, "ab")
    assert report.gradient_shares.keys() == {("coco14", "both")}
    text = words(report)
    assert (
        "On coco14, the contrasts' gradients at the label features, in percent of the "
        "classification loss's: both 25.0 (sample) and 1.0 (prototype)."
    ) in text
    assert "WARNING: on coco14, the prototype contrast of both is switched on but hardly" in text
    assert "the sample contrast of both is switched on" not in text


def test_without_measured_gradients_nothing_is_said_of_them(root):
    assert "gradient" not in words(ablation_report(root, "ab"))
