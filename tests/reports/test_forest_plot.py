"""The forest plot: panels, lines, marks, and its file."""

from __future__ import annotations

import re

import pytest

from sadcl import storage
from sadcl.reports import forest_plot
from sadcl.reports.ablation import ablation_report
from tests.reports.ablations import ablation


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
            == "difference in mAP from stage2 on test images (percentage points)"
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
    assert "+1.00, too few pairs" in texts


BASE, GAIN, NOISE, EQUAL = [50.0, 51.0, 52.5], [55, 56, 57.6], [50.1, 50.8, 52.6], [51, 52, 53.5]
INTERVAL, OPEN = "mean with 95 % interval (Bonferroni), ", "mean alone, not tested"


@pytest.mark.parametrize(
    ("arms", "marks"),
    [
        ((GAIN,), [f"{INTERVAL}p < 0.05"]),
        ((NOISE,), [f"{INTERVAL}not significant"]),
        ((GAIN, EQUAL), [f"{INTERVAL}p < 0.05", OPEN]),
        ((NOISE, BASE[:2]), [f"{INTERVAL}not significant", OPEN]),
        ((BASE[:2],), ["not tested"]),
    ],
)
def test_the_legend_has_the_marks_that_are_there(tmp_path, arms, marks):
    root = ablation(tmp_path, {"base": BASE, **{f"a{i}": arm for i, arm in enumerate(arms)}})
    figure = forest_plot.forest_figure(ablation_report(root, "ab"))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == [*marks, "difference of one seed"]
    figure.draw_without_rendering()
    inside, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= inside.x0 < inside.x1 <= whole.x1  # nothing is cut off


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
