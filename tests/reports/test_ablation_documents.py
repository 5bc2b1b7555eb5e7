"""An ablation as Markdown and as LaTeX, whatever its names contain."""

from __future__ import annotations

import re
from dataclasses import replace

from markdown_it import MarkdownIt

from sadcl.reports import ablation_documents
from sadcl.reports.ablation import Software, ablation_report
from tests.reports.ablations import EVIL


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
        r"a\&b\_50\%\#1 \textbar{}x\textbar{} \$y\$ \{z\} "
        r"\textbackslash{}n \textasciitilde{}\textasciicircum{}" in text
    )
    commands = {
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
    commands |= {"bottomrule", "checkmark", "pm"}
    assert {c for c in re.findall(r"\\([a-z]+)", text) if not c.startswith("text")} <= commands
    assert "LuaLaTeX" in lines[1]  # for the duck


def test_latex_sets_a_data_set_over_its_columns(root):
    text = ablation_documents.latex(ablation_report(root, "ab"))
    assert (
        r"\multicolumn{4}{c}{} & \multicolumn{5}{c}{coco14} & \multicolumn{5}{c}{nuswide} \\"
        in text
    )
    assert r"\cmidrule(lr){5-9}\cmidrule(lr){10-14}" in text
    assert (
        r"both & \checkmark{} & \checkmark{} & \checkmark{} & 3 & 81.17 $\pm$ 1.91 & "
        r"$+1.00$ ($+0.96$ to $+1.04$) & "
        r"\textless{}0.001 & 85.6 & 1 & 61.00 & $+1.00$ (1 pair: too few) &  & 65.9 \\"
    ) in text
    assert "LuaLaTeX" not in text
    assert "% On coco14, both compared with stage2: +1.00 mAP" in text


def test_both_name_the_versions_that_made_the_runs(root):
    report = ablation_report(root, "ab")
    assert "Runs made with" not in ablation_documents.markdown(report)  # no row has a version
    software = (Software("0.1.0", "abc", "f00+"), Software("0.2.0", "", ""))
    report = replace(report, software=software)
    note = "Runs made with sadcl 0.1.0 (sources abc, revision f00+); sadcl 0.2.0."
    assert ablation_documents.markdown(report).endswith(f"\n\n{note}\n")
    assert f"% {note}" in ablation_documents.latex(report).splitlines()
