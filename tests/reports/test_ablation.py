"""An ablation from the tables to a table, a document and a picture."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt

from sadcl import storage
from sadcl.errors import UserError
from sadcl.reports import ablation_documents, ablation_text, forest_plot, plot_style
from sadcl.reports.ablation import ablation_report
from tests.reports.ablations import EVIL, ablation, add

FIGURES = {
    "stage2": [80.0, 81.0, 79.5],
    "+SSCL": [80.1, 80.9, 79.7],
    "both": [81.01, 82.0, 80.49],
    "worse": [70.0, 71.1, 69.4],
}
MARKS = {"stage2": ["SARL"], "+SSCL": ["SARL", "SSCL"], "both": ["SARL", "SSCL", "PSCL"]}
PAPER = {"stage2": {"coco14": 85.0}, "both": {"coco14": 85.6, "nuswide": 65.9}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("ablation")
    ablation(tmp_path, FIGURES, marks=MARKS, published=PAPER)
    for arm, value in (("stage2", 60.0), ("both", 61.0)):
        add(tmp_path, arm, 0, value, dataset="nuswide")
    add(tmp_path, "+SSCL", 0, dataset="nuswide", status="failed", cause="Diverged: step 3")
    add(tmp_path, "former", 0, 50.0)
    add(tmp_path, "stage1", 0, 40.0, phase="stage1")
    return str(tmp_path)


def said(found):
    return " ".join(
        [*ablation_text.ablation_notes(found), *ablation_text.ablation_sentences(found)]
    )


def test_the_table_has_an_arm_a_line_in_the_order_of_the_study(root):
    lines = ablation_text.ablation_table(ablation_report(root, "ab"), "coco14")
    assert [line["arm"] for line in lines] == list(FIGURES)
    assert list(lines[0]) == [
        "arm",
        "SARL",
        "SSCL",
        "PSCL",
        "seeds",
        "mAP",
        "difference",
        "p (Holm)",
        "published",
    ]
    ticks = [[line[name] for name in ("SARL", "SSCL", "PSCL")] for line in lines]
    assert ticks == [["✓", "", ""], ["✓", "✓", ""], ["✓", "✓", "✓"], ["", "", ""]]
    base, sscl, both, worse = (
        [line[name] for name in ("mAP", "difference", "p (Holm)", "published")] for line in lines
    )
    assert base == ["80.17 ± 0.76", "baseline", "", "85.0"]
    assert sscl[:2] == ["80.23 ± 0.61", "+0.07 (-0.31 to +0.45)"]
    assert both == ["81.17 ± 0.77", "+1.00 (+0.98 to +1.02)", "<0.001", "85.6"]
    assert worse[1] == "-10.00 (-10.25 to -9.75)"


def test_the_sentences_say_what_is_shown_and_no_more(root):
    text = said(ablation_report(root, "ab"))
    for part in (
        "mAP in percent on the test images, which every run looked at once",
        "standard deviation over 0 to 3 seeds an arm",
        "On coco14, both against stage2: +1.00 mAP (+0.98 to +1.02), p < 0.001 corrected: a gain.",
        "On coco14, worse against stage2: -10.00 mAP (-10.25 to -9.75), p < 0.001 corrected: a loss.",
        "On nuswide, both against stage2: +1.00 mAP in one seed, which shows nothing.",
        "On nuswide, +SSCL against stage2: no seed has a figure of both, so nothing is compared.",
        "On nuswide, 2 of 4 runs have no figure and were left out: 1 failed, 1 missing.",
        "Rows of arms that are not in the study were left out: former.",
        "corrected by Holm",
        "The published figures are single runs",
    ):
        assert part in text
    assert re.search(
        r"\+SSCL against stage2: \+0.07 mAP \(-0.31 to \+0.45\), p = 0.5\d\d corrected: not shown\.",
        text,
    )
    assert "On coco14, 0 of" not in text


def test_the_runs_without_a_figure_are_listed_with_their_cause(root):
    failed, missing = ablation_text.runs_without_figure(ablation_report(root, "ab"))
    assert list(failed) == ["dataset", "arm", "seed", "what", "key", "cause"]
    assert list(failed.values()) == [
        "nuswide",
        "+SSCL",
        0,
        "failed",
        "ab-+SSCL-nuswide-s0",
        "Diverged: step 3",
    ]
    assert (missing["arm"], missing["what"]) == ("worse", "missing")


def test_another_baseline_and_another_metric(root):
    found = ablation_report(root, "ab", baseline="both", metric="val_mAP")
    by_arm = {effect.arm: effect for effect in found.on("coco14")}
    assert by_arm["stage2"].difference == pytest.approx(-1.0)
    assert by_arm["both"].verdict == "baseline"
    text = said(found)
    assert "held-out training images, which chose the epoch" in text
    assert "published" not in text + str(
        ablation_text.ablation_table(found, "coco14")
    )  # of the test images


def test_a_demo_is_not_set_beside_the_paper(tmp_path):
    found = ablation_report(
        ablation(tmp_path, {"stage2": [60.0], "both": [61.0]}, scale="demo", published=PAPER), "ab"
    )
    assert "published" not in ablation_text.ablation_table(found, "coco14")[0]
    assert said(found).startswith("Demo scale: these figures prove the path")
    assert "over 1 seed an arm" in said(found)
    assert "seeds" not in ablation_text.ablation_table(found, "coco14")[0]  # all have the same


def test_p_is_never_rounded_onto_the_bound_that_it_is_below(tmp_path):
    found = ablation_report(
        ablation(tmp_path, {"stage2": [50.0] * 3, "a": [50.3, 50.5, 50.702]}), "ab"
    )
    (_, effect) = found.effects
    assert 0.0495 < effect.corrected < 0.05
    assert ablation_text.ablation_table(found, "coco14")[1]["p (Holm)"] == "<0.05"
    assert "p < 0.05 corrected: a gain" in said(found)


def test_seeds_without_a_partner_are_in_the_mean_only(tmp_path):
    root = ablation(tmp_path, {"stage2": [50.0, 51.0], "a": [50.5, 51.7, 53.0]})
    found = ablation_report(root, "ab")
    assert ablation_text.ablation_table(found, "coco14")[1]["difference"].endswith(", 2 pairs)")
    assert "1 of its 3 seeds have no partner in stage2." in said(found)


def test_a_study_that_has_not_begun(tmp_path):
    root = ablation(tmp_path, {"stage2": [], "a": []})
    add(root, "other", 0, 1.0, study="another")
    found = ablation_report(root, "ab")
    assert "No arm of the study has a run yet." in said(found)
    assert ablation_documents.markdown(found).startswith("### ab: Why?\n")
    assert "| arm |" in ablation_documents.markdown(found)
    assert r"\bottomrule" in ablation_documents.latex(found)
    with pytest.raises(UserError, match="nothing to draw"):
        forest_plot.draw_forest(found, f"{root}/x.png")


def test_data_sets_and_seeds_that_the_study_lists_count_before_they_have_a_run(tmp_path):
    figures = {"stage2": [50.0, 51.0], "a": [50.5, 51.7]}
    root = ablation(
        tmp_path, figures, datasets={"voc2007": {}, "coco14": {}}, seeds=[0, 1, 2], question=""
    )
    found = ablation_report(root, "ab")
    assert found.datasets == ("voc2007", "coco14")
    assert "On coco14, 2 of 6 runs have no figure and were left out: 2 missing." in said(found)
    assert "On voc2007, 6 of 6 runs have no figure and were left out: 6 missing." in said(found)
    assert ablation_documents.markdown(found).startswith("### ab\n")
    assert len(forest_plot.forest_figure(found).axes) == 2
    found = ablation_report(ablation(tmp_path / "b", figures, datasets={"voc2007": {}}), "ab")
    assert "On voc2007, no arm has a run yet. On coco14, a against" in said(found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("an",), "no study 'an' here; did you mean 'ab'"),
        (("../studies/ab",), "There is no study"),
        (("search",), "is a search, not an ablation: `sadcl results top --study search`"),
        (("ab", "stage"), "has no arm 'stage'; did you mean 'stage2'"),
        (("ab", None, "test_map"), "no metric 'test_map' in percent; did you mean 'test_mAP'"),
        (("ab", None, "seconds"), "no metric 'seconds' in percent"),
        (("ab", None, "test_undefined"), "no metric 'test_undefined' in percent"),
    ],
)
def test_mistakes_name_the_nearest(root, words, message):
    storage.write(f"{root}/studies/search.json", b'{"name": "search", "space": {}}')
    with pytest.raises(UserError, match=message):
        ablation_report(root, *words)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Names, question, components and cause that hold every special character."""
    tmp_path = tmp_path_factory.mktemp("evil")
    marks, published = {EVIL: [EVIL + "!"]}, {EVIL: {"coco14": 85.6}}
    root = ablation(
        tmp_path,
        {"[base]*": [50.0, 51.0], EVIL: [50.5, 51.7]},
        marks=marks,
        published=published,
        question=EVIL,
    )
    add(root, EVIL, 0, dataset="voc2007", status="failed", cause=f"a\nb {EVIL}")
    return ablation_report(root, "ab")


def test_markdown_renders_every_name_as_it_is(evil):
    tokens = MarkdownIt("commonmark").enable("table").parse(ablation_documents.markdown(evil))
    inline = [token for token in tokens if token.type == "inline"]
    assert {child.type for token in inline for child in token.children} <= {"text", "text_special"}
    texts = ["".join(child.content for child in token.children) for token in inline]
    for name in (EVIL, EVIL + "!", "[base]*", f"a b {EVIL}", f"ab: {EVIL}"):
        assert name in texts
    assert "✓" in texts
    kinds = [token.type for token in tokens if token.level == 0 and token.nesting == 1]
    assert kinds == [
        "heading_open",
        "table_open",
        "paragraph_open",
        "bullet_list_open",
        "table_open",
    ]


def unescaped(line, character):
    return len(re.findall(rf"(?<!\\){re.escape(character)}", line))


def test_latex_has_as_many_cells_in_every_row_and_only_known_commands(evil):
    lines = ablation_documents.latex(evil).splitlines()
    table = [line for line in lines if not line.startswith("%")]
    text = "\n".join(table)
    (columns,) = re.findall(r"\\begin{tabular}{(\w+)}", text)
    rows = [line for line in table if line.endswith(r" \\")]
    assert len(rows) == 2 + 2
    assert [unescaped(row, "&") + 1 for row in rows[1:]] == [len(columns)] * 3
    for line in table:
        assert not unescaped(line, "%")
        assert not unescaped(line, "#")
        assert not unescaped(line, "_")
        assert unescaped(line, "{") == unescaped(line, "}")
        assert not unescaped(line, "$") % 2
        assert not line.startswith(("[", "*"))  # an argument of the \\ before
    assert (
        r"a\&b\_50\%\#1 \textbar{}x\textbar{} \$y\$ \{z\} \textbackslash{}n \textasciitilde{}\textasciicircum{}"
        in text
    )
    known = {
        "begin",
        "end",
        "centering",
        "footnotesize",
        "caption",
        "label",
        "multicolumn",
        "cmidrule",
        "toprule",
        "midrule",
    }
    known |= {"bottomrule", "checkmark", "pm"}
    assert {c for c in re.findall(r"\\([a-z]+)", text) if not c.startswith("text")} <= known
    assert "LuaLaTeX" in lines[1]  # for the duck


def test_latex_sets_a_data_set_over_its_columns(root):
    text = ablation_documents.latex(ablation_report(root, "ab"))
    assert (
        r"\multicolumn{4}{c}{} & \multicolumn{5}{c}{coco14} & \multicolumn{5}{c}{nuswide} \\"
        in text
    )
    assert r"\cmidrule(lr){5-9}\cmidrule(lr){10-14}" in text
    assert (
        r"both & \checkmark{} & \checkmark{} & \checkmark{} & 3 & 81.17 $\pm$ 0.77 & $+1.00$ ($+0.98$ to $+1.02$) & "
        r"\textless{}0.001 & 85.6 & 1 & 61.00 & $+1.00$ (one seed) &  & 65.9 \\"
    ) in text
    assert "LuaLaTeX" not in text
    assert "% On coco14, both against stage2: +1.00 mAP" in text


def test_the_plot_has_a_panel_a_data_set_and_a_line_an_arm(root):
    figure = forest_plot.forest_figure(ablation_report(root, "ab"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "coco14 (3 seeds)",
        "nuswide (0 to 1 seeds)",
    ]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "+SSCL",
        "both",
        "worse",
    ]
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low < 0 < high
        assert (
            axes.get_xlabel().replace("\n", " ")
            == "difference in mAP to stage2 on test images (percentage points)"
        )
    coco = figure.axes[0]
    dots = next(line for line in coco.lines if line.get_marker() == "o")
    assert list(dots.get_xdata()) == pytest.approx([0.1, -0.1, 0.2])
    filled = [
        line.get_markerfacecolor() != "white" for line in coco.lines if line.get_marker() == "D"
    ]
    assert filled == [False, True, True]
    texts = " ".join(text.get_text() for text in figure.axes[1].texts)
    assert "no pair" in texts
    assert "+1.00, one seed" in texts


@pytest.mark.parametrize("shift", [5.0, -5.0])
def test_the_zero_line_is_always_in_sight(tmp_path, shift):
    root = ablation(
        tmp_path, {"stage2": [50.0, 51.0, 52.0], "a": [50.1 + shift, 51.0 + shift, 52.0 + shift]}
    )
    low, high = forest_plot.forest_figure(ablation_report(root, "ab")).axes[0].get_xlim()
    assert low < 0 < high


@pytest.mark.filterwarnings("ignore:Glyph")  # no font of the test's has a duck
@pytest.mark.parametrize(
    ("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")]
)
def test_the_plot_is_written_in_the_format_of_its_ending(evil, tmp_path, ending, begins):
    uri = str(tmp_path / "new" / f"x.{ending}")
    forest_plot.draw_forest(evil, uri)
    content = storage.read(uri)
    assert content.startswith(begins)
    if ending == "svg":
        assert "$y$" in re.sub(
            "<!--.*?-->", "", content.decode(), flags=re.DOTALL
        )  # no mathematics


@pytest.mark.parametrize("name", ["x.jpg", "png", "x."])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"must end in \.png, \.svg, \.pdf"):
        plot_style.check_ending(name)
